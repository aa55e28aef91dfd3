#!/usr/bin/env bash
# What `make gpu-bundle` does once the programs are linked: shared libraries, golden vectors, peers, script and manifest.
#
#   scripts/gpu-bundle.sh FOLDER MIB     FOLDER/bin holds the programs; the whole stays within MIB
#
# Exit status: 0 complete, 1 too large or a file is missing.
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in "" | -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
if [ $# -ne 2 ] || [ ! -d "$1/bin" ] || ! [[ $2 =~ ^[1-9][0-9]{0,5}$ ]]; then
    echo "gpu-bundle: FOLDER with programs in FOLDER/bin, and MIB, are needed (--help)" >&2
    exit 1
fi
bundle=$1 most=$(($2 << 20))
size() { du -sb "$bundle" | cut -f1; }

mkdir -p "$bundle/lib" "$bundle/golden"
# Not the C and C++ libraries: those are the machine's. (A libstdc++ from here would ask for this machine's glibc.)
rm -f "$bundle"/lib/*
ldd "$bundle/bin/fourbit-gpu" | awk '$1 ~ /^lib(benchmark|gomp)\./ { print $1, $3 }' | while read -r name path; do
    cp -L "$path" "$bundle/lib/$name"
done
compgen -G "$bundle/lib/libbenchmark.so*" > /dev/null || { echo "gpu-bundle: fourbit-gpu does not link Google Benchmark" >&2; exit 1; }
cp scripts/gpu-report.sh "$bundle/gpu-report.sh"
cp kernels/cuda/dispatch_table.h "$bundle/dispatch_table.h"
if [ -d validate/golden ]; then cp -r validate/golden/. "$bundle/golden/"; fi

# As many of the CUDA libraries as there is room for, the newest first.
rm -rf "$bundle/peers"
mkdir -p "$bundle/peers/bitsandbytes"
taken=""
for library in $(find build/peers/bitsandbytes -name 'libbitsandbytes_cuda*.so' 2>/dev/null | sort -rV); do
    [ $(($(size) + $(stat -c %s "$library"))) -lt $((most - (1 << 20))) ] || continue
    cp "$library" "$bundle/peers/bitsandbytes/"
    taken="$taken $(basename "$library")"
done
if [ -n "$taken" ]; then cp build/peers/bitsandbytes.version "$bundle/peers/"; else echo "gpu-bundle: without bitsandbytes (scripts/peers.sh --cuda fetches it)"; fi

glibc=$(for p in "$bundle"/bin/* "$bundle"/lib/*; do objdump -T "$p" 2>/dev/null; done | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
{
    echo "commit $(git describe --always --abbrev=12 --dirty --exclude='*' 2>/dev/null || echo unknown), built $(date -u +%Y-%m-%d) on $(uname -m)"
    echo "$("$CC" --version | head -n 1); $("$NVCC" --version | tail -n 1); needs ${glibc:-an unknown glibc}"
    (cd "$bundle" && find . -type f ! -name 'MANIFEST*' -print0 | sort -z | xargs -0 sha256sum)
} > "$bundle/MANIFEST.new"
mv "$bundle/MANIFEST.new" "$bundle/MANIFEST"
printf 'gpu-bundle: %s, %.1f MiB, needs %s; there: %s/gpu-report.sh\n' "$bundle" "$(awk -v b="$(size)" 'BEGIN { print b / 1048576 }')" "${glibc:-?}" "$(basename "$bundle")"
[ "$(size)" -le "$most" ] || { echo "gpu-bundle: larger than $2 MiB" >&2; exit 1; }
