#!/bin/sh
# Builds the libFuzzer targets and runs each for a while: fuzz.sh BUILD_DIR SECONDS. New inputs stay
# in BUILD_DIR/corpus; a finding ends the script with its file's name.
set -eu
build=$1
seconds=$2

for compiler in clang clang-14 clang-15 clang-16; do
    if command -v "$compiler" >/dev/null; then
        break
    fi
done
if ! command -v "$compiler" >/dev/null; then
    echo "fuzz.sh: clang is missing; run: apt-get install clang" >&2
    exit 1
fi
cmake -DCMAKE_C_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" \
    -DOT_SANITIZE=ON -DOT_FUZZ=ON -DBUILD_TESTING=OFF -S . -B "$build"
cmake --build "$build" -j "$(nproc)"
for source in tests/fuzz/fuzz_*.c; do
    target=$(basename "$source" .c)
    mkdir -p "$build/corpus/$target"
    echo "== $target, $seconds s"
    "$build/tests/fuzz/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$build/$target-" \
        "$build/corpus/$target" "tests/fuzz/corpus/$target"
done
