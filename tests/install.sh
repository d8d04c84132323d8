#!/bin/sh
# Installs into an empty folder and builds the example against what lies there, by pkg-config:
# install.sh CMAKE BUILD SOURCE CC PREFIX LIBDIR MAKE_TINY_MODEL
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
DESTDIR="$folder" "$1" --install "$2" >"$folder/log"
root=$folder$5
for file in bin/onetrip include/onetrip.h "$6/libonetrip.a" "$6/libonetrip.so" \
    "$6/pkgconfig/onetrip.pc" share/man/man1/onetrip.1; do
    [ -e "$root/$file" ] || { echo "install.sh: $file is not installed"; exit 1; }
done
export PKG_CONFIG_PATH="$root/$6/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$folder"
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
