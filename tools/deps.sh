#!/bin/sh
# Installs the Debian packages that building and testing need, if any is missing: through apt where
# this user may, else it prints the command. Packages named as arguments are needed besides.
# `deps.sh --print` only lists.
set -eu

packages="gcc libc6-dev make cmake pkg-config git ca-certificates python3 python3-pip
liburing-dev libpcre2-dev libjansson-dev libsqlite3-dev libcmocka-dev valgrind"
# shellcheck disable=SC2086
packages=$(echo $packages)

if [ "${1:-}" = --print ]; then
    echo "$packages"
    exit 0
fi
packages="$packages $*"
if ! command -v dpkg-query >/dev/null; then
    if command -v cmake >/dev/null && pkg-config --exists liburing libpcre2-8 jansson sqlite3 cmocka; then
        exit 0
    fi
    echo "deps.sh: this is no Debian; install what these packages hold: $packages" >&2
    exit 1
fi

missing=""
for package in $packages; do
    if ! dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
        missing="$missing $package"
    fi
done
if [ -z "$missing" ]; then
    exit 0
fi

# Another compiler, CMake or pip than Debian's will do, too.
needed=""
for package in $missing; do
    case $package in
    gcc | make | cmake | git | python3 | pkg-config | valgrind) command -v "$package" >/dev/null && continue ;;
    python3-pip) python3 -m pip --version >/dev/null 2>&1 && continue ;;
    python3-venv) python3 -c 'import ensurepip' 2>/dev/null && continue ;;
    esac
    needed="$needed $package"
done
if [ -z "$needed" ]; then
    exit 0
fi

install="apt-get install -y --no-install-recommends$needed"
if [ "$(id -u)" = 0 ]; then
    sudo=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo="sudo -n"
else
    echo "deps.sh: these Debian packages are missing and only root may install them; run" >&2
    echo "    sudo $install" >&2
    exit 1
fi
echo "deps.sh: installing Debian packages:$needed" >&2
DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
$sudo apt-get update -q >&2
# shellcheck disable=SC2086
$sudo $install >&2
