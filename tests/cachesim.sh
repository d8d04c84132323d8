#!/bin/sh
# cachesim.sh ONETRIP MAKE_TINY TYPE - the ledger's modelled ram>cache figure against a cache simulator.
#
# A model ten times the simulated last-level cache decodes 4 and then 12 tokens under cachegrind. The
# difference of the simulated misses, in lines of 64 bytes, must be within 5 % of the difference of the
# ledger's ram>cache bytes (weights and KV): start and end of the program cancel out. Runs the AVX2
# kernels, the best that the simulator knows; one thread. Exit 77: skipped.
set -eu
onetrip=$1 make_tiny=$2 type=$3
if ! command -v valgrind >/dev/null 2>&1; then
    echo "skipped: valgrind is not installed"
    exit 77
fi
if [ "$(uname -m)" != x86_64 ]; then
    echo "skipped: the simulated kernels are those of x86-64"
    exit 77
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$make_tiny" "$dir/model.gguf" llama "$type" 3 4 512

# Prints "LEDGER_BYTES MISSED_BYTES" of a run that generates $1 tokens.
measure() {
    ONETRIP_ISA=avx2 valgrind --tool=cachegrind --cache-sim=yes --cachegrind-out-file=/dev/null \
        --I1=32768,8,64 --D1=32768,8,64 --LL=1048576,16,64 "$onetrip" run "$dir/model.gguf" --raw \
        -p hello -n "$1" --ignore-eos -t 1 --temp 0 --residency cache \
        --ledger "$dir/ledger.jsonl" >/dev/null 2>"$dir/log" || { cat "$dir/log"; exit 1; }
    ledger=$(awk '/"boundary":"ram>cache"/ && !/"class":"activation"/ {
        sub(/.*"moved_bytes":/, ""); sub(/,.*/, ""); sum += $0 } END { printf "%d", sum }' \
        "$dir/ledger.jsonl")
    missed=$(tr -d , <"$dir/log" | sed -n 's/.*LLd misses: *[0-9]* *( *\([0-9]*\) rd.*/\1/p')
    echo "$ledger $((missed * 64))"
}

set -- $(measure 4) $(measure 12)
ledger=$(($3 - $1)) missed=$(($4 - $2))
echo "8 tokens: ledger $ledger bytes, simulator $missed bytes"
awk -v a="$ledger" -v b="$missed" 'BEGIN {
    residual = (b - a) / a
    printf "residual %.2f %%\n", 100 * residual
    exit !(a > 0 && residual > -0.05 && residual < 0.05) }'
