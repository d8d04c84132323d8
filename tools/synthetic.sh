#!/bin/sh
# Makes a synthetic model in the cache, ${XDG_CACHE_HOME:-~/.cache}/onetrip/models, and prints its path.
#
#   synthetic.sh SHAPE-QUANT
#
#   SHAPE           q4_0     q4_k_m   q8_0    random weights in the shape of
#   llama-1b        0.77     0.80     1.32    Llama 3.2 1B          (sizes in GB)
#   llama-3b        1.91     2.01     3.42    Llama 3.2 3B
#   llama-8b        4.66     4.92     8.54    Llama 3.1 8B
#   qwen3moe-8g     8.17     8.69     15.25   Qwen3 30B-A3B, 22 of its 48 layers
#
# These are the models of bench/results. mkmodel.py writes them, with numpy and gguf in a Python
# environment that is shared with the peers (bench/compare/build_peers.sh); the vocabulary is SmolLM2's.
set -eu

name=${1:-}
case $name in
llama-[138]b-q[48]_0 | llama-[138]b-q4_k_m | qwen3moe-8g-q[48]_0 | qwen3moe-8g-q4_k_m) ;;
*)
    echo "synthetic.sh: unknown model \"$name\": expected SHAPE-QUANT, as in NAME=llama-1b-q4_0" >&2
    echo "    SHAPE llama-1b, llama-3b, llama-8b, qwen3moe-8g; QUANT q4_0, q4_k_m, q8_0" >&2
    exit 2
    ;;
esac

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/onetrip
model=$cache/models/$name.gguf
if [ ! -f "$model" ]; then
    vocabulary=$(sh "$here/fetch_model.sh" smollm2)
    python=$(sh "$here/python_env.sh" "$cache/peers/venv" numpy gguf==0.19.0)
    "$python" "$here/mkmodel.py" "$name" "$model" "$vocabulary"
fi
echo "$model"
