#!/bin/sh
# The examples write what the program writes, and what each of several questions gets alone:
# example.sh GENERATE ASK ONETRIP MAKE_TINY_MODEL
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$4" "$folder/tiny.gguf"
"$1" "$folder/tiny.gguf" hello >"$folder/example"
"$3" run "$folder/tiny.gguf" --raw -p hello -n 32 --temp 0 -q >"$folder/program"
[ "$(wc -c <"$folder/example")" -gt 10 ]
# The program holds back an unfinished last character; the example does not care.
head -c 16 "$folder/example" >"$folder/a"
head -c 16 "$folder/program" >"$folder/b"
cmp "$folder/a" "$folder/b"
lines=$(wc -l <"$(dirname "$0")/../examples/generate.c")
[ "$lines" -lt 50 ] || { echo "the example has $lines lines"; exit 1; }
if "$1" "$folder/absent.gguf" hello 2>"$folder/error"; then
    echo "a missing model is no error"
    exit 1
fi
grep -q absent.gguf "$folder/error"
text="a text that is longer than a block of keys, about which there will be several questions to answer"
for question in what when "who was it"; do
    "$2" "$folder/tiny.gguf" "$text" "$question" >>"$folder/each" 2>"$folder/report"
done
"$2" "$folder/tiny.gguf" "$text" what when "who was it" >"$folder/together" 2>"$folder/report"
[ "$(wc -c <"$folder/together")" -gt 100 ]
cmp "$folder/each" "$folder/together"
grep -q "ram>cache kv" "$folder/report"
