#!/bin/sh
# Builds the peers and compares on the models given (default: those in the cache); `make bench-peers`.
#
#   all.sh [MODEL.gguf ...]    ROUNDS=3: how often each engine runs
#
# `make model` fetches the real models; `make synthetic` makes those of random weights that the tables
# of bench/results are also of.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/onetrip
if [ $# -eq 0 ]; then
    set -- "$cache"/models/*.gguf
fi
if [ ! -f "$1" ]; then
    echo "all.sh: no model: give one, or run make model or make synthetic" >&2
    exit 1
fi
sh "$here/build_peers.sh"
compare() {
    python3 "$here/compare.py" "$@" --rounds "${ROUNDS:-3}"
}
compare memory "$@"
compare memory "$@" --engines xllamacpp,onetrip-avx2
compare start "$@"
compare busy "$@"
if [ "$(id -u)" = 0 ]; then
    compare budget "$@"
fi
