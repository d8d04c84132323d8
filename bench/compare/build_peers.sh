#!/bin/sh
# Fetches the peers from PyPI and builds llama.cpp natively; prints where they are. Not used by tests.
#
#   build_peers.sh [FOLDER]    default ${XDG_CACHE_HOME:-~/.cache}/onetrip/peers
#
# llama.cpp comes inside the source package of llama-cpp-python (MIT); llama-bench is built from it
# for this machine's processor. xllamacpp (MIT) is a wheel whose best instruction set is AVX2. Needs a
# C++ compiler, CMake and Python 3 with venv. What is there already is kept.
set -eu

llama_version=${LLAMA_VERSION:-0.3.36}
xllamacpp_version=${XLLAMACPP_VERSION:-2026.10.11549}
tools=$(cd "$(dirname "$0")/../../tools" && pwd)
peers=${1:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/onetrip/peers}
mkdir -p "$peers"
cd "$peers"
sh "$tools/python_env.sh" venv "xllamacpp==$xllamacpp_version" >&2

source=llama_cpp_python-$llama_version
if [ ! -x "llama-bench-$llama_version" ]; then
    if [ ! -d "$source" ]; then
        venv/bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
            "llama-cpp-python==$llama_version" >&2
        rm -rf unpacking # what was interrupted is not taken for the whole
        mkdir unpacking
        tar -xzf "$source.tar.gz" -C unpacking
        mv "unpacking/$source" .
        rmdir unpacking
    fi
    cmake -S "$source/vendor/llama.cpp" -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
        -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_SERVER=OFF >&2
    cmake --build build --target llama-bench -j "$(nproc)" >&2
    mv build/bin/llama-bench "llama-bench-$llama_version"
    rm -rf build "$source"
fi
echo "llama-bench: $peers/llama-bench-$llama_version"
echo "xllamacpp:   $peers/venv/bin/python"
