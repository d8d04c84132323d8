#!/bin/sh
# Builds the libFuzzer targets and runs each for a while: fuzz.sh BUILD_DIR SECONDS. New inputs stay
# in BUILD_DIR/corpus; a finding ends the script with its file's name.
# `fuzz.sh --packages` prints the Debian packages that are missing for it.
set -eu

# Whether a compiler is there with its libFuzzer, which Debian packs by itself.
can_fuzz() {
    command -v "$1" >/dev/null && echo 'int LLVMFuzzerTestOneInput(const char *p, long n); int
        LLVMFuzzerTestOneInput(const char *p, long n) { return p == 0 && n < 0; }' |
        "$1" -x c -fsanitize=fuzzer,address - -o /dev/null 2>/dev/null
}

compiler="" packages=""
for candidate in clang clang-19 clang-18 clang-17 clang-16 clang-15 clang-14; do
    if can_fuzz "$candidate"; then
        compiler=$candidate packages=""
        break
    fi
    if [ -z "$packages" ] && command -v "$candidate" >/dev/null; then
        packages=libclang-rt-$("$candidate" -dumpversion | cut -d. -f1)-dev
    fi
done
if [ -z "$compiler" ] && [ -z "$packages" ]; then
    packages="clang libclang-rt-14-dev" # of Debian 12
fi
if [ "$1" = --packages ]; then
    echo "$packages"
    exit 0
fi
build=$1
seconds=$2
if [ -z "$compiler" ]; then
    echo "fuzz.sh: clang with libFuzzer is missing; run: apt-get install $packages" >&2
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
