#!/bin/sh
# Makes a Python environment with packages from PyPI, and prints its interpreter. What is there is kept.
#
#   python_env.sh FOLDER REQUIREMENT ...
set -eu

venv=$1
shift
if [ ! -x "$venv/bin/pip" ] && ! python3 -m venv "$venv" >&2; then
    echo "python_env.sh: on Debian, apt-get install python3-venv" >&2
    exit 1
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check "$@" >&2
echo "$venv/bin/python"
