#!/bin/sh
# Builds the kernels and their tests for aarch64, without any library, and runs them under qemu: with
# dot-product and int8-matrix instructions, with the former only, with neither.
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
    *_avx2 | *_avx512) continue ;;
    *_neon) isa=-march=armv8.2-a+dotprod+fp16 ;;
    *_i8mm) isa=-march=armv8.2-a+dotprod+fp16+i8mm ;;
    *) isa= ;;
    esac
    # shellcheck disable=SC2086
    "$CC" $flags $isa -c "$file" -o "$work/$name.o"
    objects="$objects $work/$name.o"
done
for test in dequant vector gemv gemm attention; do
    # shellcheck disable=SC2086
    "$CC" $flags -static -DTEST_DATA="\"$source/tests/data\"" "$source/tests/test_kernel_$test.c" \
        $objects -lpthread -lm -o "$work/$test"
    for cpu in max neoverse-n1 cortex-a57; do
        echo "== $test on $cpu"
        "$QEMU" -cpu "$cpu" "$work/$test"
    done
done
