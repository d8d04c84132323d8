#!/bin/sh
# Installs into an empty folder, builds the example against what lies there, by pkg-config, and
# removes it again:
# install.sh CMAKE BUILD SOURCE CC PREFIX LIBDIR MAKE_TINY_MODEL
set -eu
folder=$(mktemp -d)
# What was installed from this build folder before must still be removable after the test.
for note in install_manifest.txt install_folders.txt; do
    [ ! -e "$2/$note" ] || mv "$2/$note" "$folder/$note"
done
finish() {
    for note in install_manifest.txt install_folders.txt; do
        rm -f "$2/$note"
        [ ! -e "$folder/$note" ] || mv "$folder/$note" "$2/$note"
    done
    rm -rf "$folder"
}
trap 'finish "$@"' EXIT
root=$folder/root$5
# DESTDIR may be relative, to a folder that is not there yet.
(cd "$folder" && DESTDIR=stage timeout 60 "$1" --install "$2" >"$folder/log")
DESTDIR="$folder/stage" "$1" --build "$2" --target uninstall >"$folder/log"
[ ! -e "$folder/stage" ] || { echo "install.sh: not all of stage was removed"; exit 1; }
# A folder and files that are there before, and must be there after.
mkdir -p "$root/bin" "$root/share"
echo other >"$root/share/other"
(cd "$folder/root" && find . | sort) >"$folder/before"
DESTDIR="$folder/root" "$1" --install "$2" >"$folder/log"
for file in bin/onetrip include/onetrip.h "$6/libonetrip.a" "$6/libonetrip.so" \
    "$6/pkgconfig/onetrip.pc" share/man/man1/onetrip.1; do
    [ -e "$root/$file" ] || { echo "install.sh: $file is not installed"; exit 1; }
done
export PKG_CONFIG_PATH="$root/$6/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$folder/root"
"$7" "$folder/tiny.gguf"
# shellcheck disable=SC2046
"$4" -std=c11 "$3/examples/generate.c" $(pkg-config --cflags --libs onetrip) -o "$folder/shared"
LD_LIBRARY_PATH="$root/$6" "$folder/shared" "$folder/tiny.gguf" hello >"$folder/one"
# The static library needs what it stands on, from where the system has it.
unset PKG_CONFIG_SYSROOT_DIR
# shellcheck disable=SC2046
"$4" -std=c11 "$3/examples/generate.c" -I"$root/include" "$root/$6/libonetrip.a" \
    $(pkg-config --libs liburing libpcre2-8 jansson sqlite3) -lm -lpthread -o "$folder/static"
"$folder/static" "$folder/tiny.gguf" hello >"$folder/two"
cmp "$folder/one" "$folder/two"
"$root/bin/onetrip" --version
# Away again, all of it and nothing else; what came to lie there since stays.
DESTDIR="$folder/root" "$1" --install "$2" >"$folder/log"
# With another DESTDIR nothing is there, and nothing is forgotten.
if DESTDIR="$folder/other" "$1" --build "$2" --target uninstall >"$folder/log" 2>&1; then
    echo "install.sh: nothing was removed, and that was no error"
    exit 1
fi
echo mine >"$root/include/mine"
DESTDIR="$folder/root" "$1" --build "$2" --target uninstall >"$folder/log"
[ "$(ls "$root/include")" = mine ] || { echo "install.sh: include holds more, or less"; exit 1; }
rm -r "$root/include"
(cd "$folder/root" && find . | sort) >"$folder/after"
diff "$folder/before" "$folder/after"
if DESTDIR="$folder/root" "$1" --build "$2" --target uninstall >"$folder/log" 2>&1; then
    echo "install.sh: what is not installed was removed"
    exit 1
fi
