#!/bin/sh
# Builds the kernels and their tests for aarch64, without any library, and runs them under qemu.
#
#   tests/kernel_aarch64.sh SOURCE_DIRECTORY WORK_DIRECTORY
#
# 0: all passed; 77: there is no cross compiler or no qemu here.
set -eu
source=$1 work=$2
CC=${AARCH64_CC:-aarch64-linux-gnu-gcc}
QEMU=${AARCH64_QEMU:-qemu-aarch64}
for tool in "$CC" "$QEMU"; do
    command -v "$tool" >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
mkdir -p "$work"
flags="-std=c11 -O2 -D_GNU_SOURCE -Wall -Wextra -Werror -fno-math-errno -ffp-contract=off
    -I$source/src -I$source/include -I$source/tests -I$source/tests/aarch64"

objects=
for file in "$source"/src/kernel/*.c "$source"/src/base/alloc.c "$source"/src/base/dtype.c; do
    name=$(basename "$file" .c)
    case $name in
    *_avx2 | *_avxvnni | *_avx512 | *_avx512bf16) continue ;;
    *_neon) isa=-march=armv8.2-a+dotprod+fp16 ;;
    *_i8mm) isa=-march=armv8.2-a+dotprod+fp16+i8mm ;;
    *) isa= ;;
    esac
    # shellcheck disable=SC2086
    "$CC" $flags $isa -c "$file" -o "$work/$name.o"
    objects="$objects $work/$name.o"
done
link() { # PROGRAM SOURCE
    # shellcheck disable=SC2086
    "$CC" $flags -static -DTEST_DATA="\"$source/tests/data\"" "$2" $objects -lpthread -lm -o "$work/$1"
}

# Which tables a CPU gets, and what lowers the choice.
link tables "$source/tests/aarch64/tables.c"
expect() { # CPU ONETRIP_ISA LINE
    line=$(ONETRIP_ISA=$2 "$QEMU" -cpu "$1" "$work/tables")
    [ "$line" = "$3" ] || { echo "tables on $1, ONETRIP_ISA=$2: $line; expected $3"; exit 1; }
    echo "ok tables on $1, ONETRIP_ISA=$2: $line"
}
expect max "" "scalar neon-dotprod neon-i8mm => neon-i8mm"
expect max i8mm "scalar neon-dotprod neon-i8mm => neon-i8mm"
expect max neon "scalar neon-dotprod neon-i8mm => neon-dotprod"
expect max scalar "scalar neon-dotprod neon-i8mm => scalar"
expect neoverse-n1 "" "scalar neon-dotprod => neon-dotprod"
expect cortex-a57 "" "scalar => scalar"

# On "max" every test goes through all three tables; older CPUs show that nothing newer is executed.
for test in dequant vector gemv gemm attention; do
    link "$test" "$source/tests/test_kernel_$test.c"
    echo "== $test, all tables"
    "$QEMU" -cpu max "$work/$test"
done
for cpu in neoverse-n1 cortex-a57; do
    echo "== vector and gemv on $cpu"
    "$QEMU" -cpu "$cpu" "$work/vector"
    "$QEMU" -cpu "$cpu" "$work/gemv"
done
