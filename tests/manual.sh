#!/bin/sh
# Every command and every option that the program's help names is in the man page, and the other
# way round: manual.sh ONETRIP MAN_PAGE
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
commands="run eval tokenize inspect bench ledger simulate"
for command in $commands; do
    "$1" help "$command" | sed -n 's/^ *\(-., \)\{0,1\}\(--[a-z][a-z-]*\).*/\2/p'
    grep -q "^\.SS onetrip $command" "$2" || { echo "the man page lacks $command"; exit 1; }
done | sort -u >"$folder/help"
sed 's/\\-/-/g' "$2" | grep -o -- '--[a-z][a-z-]*[a-z]' | sort -u >"$folder/manual"
# What --help does not list: the program's own, and names of llama.cpp that are taken, too.
printf '%s\n' --version --predict --temperature --draft >>"$folder/help"
sort -u "$folder/help" >"$folder/all"
if ! diff "$folder/all" "$folder/manual"; then
    echo "manual.sh: < is missing in the man page, > is no option"
    exit 1
fi
