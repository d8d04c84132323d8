#!/bin/sh
# Enforces the level table of the house (docs/architecture.md) by reading #include lines, and the
# style's limits that a machine can check. levels.sh SOURCE_DIR; prints each breach.
set -u
cd "$1" || exit 1
breaches=$(mktemp)
trap 'rm -f "$breaches"' EXIT

# A file of a module may include its own module's headers, those of modules of a lower level, and
# onetrip.h. base (level 0) is open to all.
level_of() {
    case $1 in
    base) echo 0 ;;
    sys | format | token | kernel | ledger) echo 1 ;;
    residency) echo 2 ;;
    kv) echo 3 ;;
    model) echo 4 ;;
    engine | plan) echo 5 ;;
    report) echo 6 ;;
    cli) echo 7 ;;
    *) echo unknown ;;
    esac
}

for file in src/*/*.c src/*/*.h; do
    module=$(echo "$file" | cut -d/ -f2)
    level=$(level_of "$module")
    if [ "$level" = unknown ]; then
        echo "$file: module $module has no level" >>"$breaches"
        continue
    fi
    for header in $(sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$file"); do
        used=${header%%/*}
        [ "$header" = onetrip.h ] || [ "$header" = commit.h ] || [ "$used" = "$module" ] && continue
        used_level=$(level_of "$used")
        if [ "$used_level" = unknown ]; then
            echo "$file: includes \"$header\", which names no module" >>"$breaches"
        elif [ "$level" = 7 ]; then
            echo "$file: includes \"$header\"; a face includes onetrip.h only" >>"$breaches"
        elif [ "$used_level" -ge "$level" ]; then
            echo "$file: level $level includes \"$header\" of level $used_level" >>"$breaches"
        fi
    done
done

# The operating system's memory and file calls belong to sys; heap memory to base/alloc.
for file in src/*/*.c; do
    module=$(echo "$file" | cut -d/ -f2)
    case $module in
    sys | cli) continue ;;
    esac
    grep -nE '(^|[^a-z_.>])(open|pread|read|mmap|munmap|mlock|madvise|fopen|posix_fadvise|io_uring_[a-z_]+)\(' \
        "$file" /dev/null | grep -vE ':[0-9]+: *(\*|/\*|//)' | sed 's/$/   <- a call that belongs to sys/' \
        >>"$breaches"
    if [ "$file" != src/base/alloc.c ]; then
        grep -nE '(^|[^a-z_])(malloc|calloc|realloc|strdup|strndup)\(' "$file" /dev/null |
            grep -vE ':[0-9]+: *(\*|/\*|//)' | sed 's/$/   <- heap memory is taken by mem_*/' \
            >>"$breaches"
    fi
    grep -nE '(^|[^a-z_])(exit|abort|printf|perror)\(' "$file" /dev/null |
        grep -vE ':[0-9]+: *(\*|/\*|//)' | sed 's/$/   <- the library never prints or exits/' \
        >>"$breaches"
done

# Files of about a thousand lines, functions of about 70 (a function ends at a brace in column one).
# Kernels and tables may be longer where the line before says so with the word "longer".
for file in src/*/*.c src/*/*.h include/*.h; do
    lines=$(wc -l <"$file")
    [ "$lines" -gt 1000 ] && echo "$file: $lines lines, at most 1000" >>"$breaches"
    awk -v file="$file" -v excused=-1000 '
        /^[a-z].*\) \{$/ || (/^[a-z].*[({,]$/ && !/^[a-z].*= \{$/ && !/^(struct|enum|union)/) { if (!inside) { start = NR; inside = 1 } }
        !inside && /longer/ { excused = NR }
        /^\}/ {
            if (inside && NR - start + 1 > 75 && excused < start - 12)
                printf "%s:%d: a function of %d lines, at most about 70\n", file, start, NR - start + 1
            inside = 0
        }
        /^[^ ].*;$/ { inside = 0 }
        length($0) > 108 { printf "%s:%d: %d columns\n", file, NR, length($0) }
        /\t/ { printf "%s:%d: a tab\n", file, NR }
        /[ ]$/ { printf "%s:%d: a space at the end\n", file, NR }
        /TODO|FIXME|XXX/ { printf "%s:%d: unfinished\n", file, NR }
    ' "$file" | case $file in src/kernel/*) grep -v "a function of" ;; *) cat ;; esac >>"$breaches"
done

if [ -s "$breaches" ]; then
    cat "$breaches"
    echo "levels.sh: $(wc -l <"$breaches") breaches"
    exit 1
fi
echo "levels.sh: no breaches"
