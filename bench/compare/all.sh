#!/bin/sh
# Builds the peers and compares on the models given (default: those in the cache); `make bench-peers`.
#
#   all.sh [MODEL.gguf ...]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/onetrip
if [ $# -eq 0 ]; then
    set -- "$cache"/models/*.gguf
fi
if [ ! -f "$1" ]; then
    echo "all.sh: no model: give one, or run make model" >&2
    exit 1
fi
sh "$here/build_peers.sh"
python3 "$here/compare.py" memory "$@"
python3 "$here/compare.py" memory "$@" --engines xllamacpp,onetrip-avx2
python3 "$here/compare.py" start "$@"
python3 "$here/compare.py" busy "$@"
if [ "$(id -u)" = 0 ]; then
    python3 "$here/compare.py" budget "$@"
fi
