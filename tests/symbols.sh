#!/bin/sh
# The shared library exports the functions of the public header and nothing else:
# symbols.sh LIBRARY HEADER
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
nm -D --defined-only "$1" | awk '{ print $3 }' | sed 's/@.*//' | sort -u >"$folder/exported"
grep -A3 '^OT_API' "$2" | sed -n 's/.*[ *]\(ot_[a-z0-9_]*\)(.*/\1/p' | sort -u >"$folder/declared"
if grep -v '^ot_' "$folder/exported"; then
    echo "symbols.sh: the library exports the names above, which are not ot_*"
    exit 1
fi
if ! diff "$folder/declared" "$folder/exported"; then
    echo "symbols.sh: < is declared and not exported, > the other way round"
    exit 1
fi
