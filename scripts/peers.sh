#!/usr/bin/env bash
# Fetch the peer libraries that the benchmark times beside ours: bitsandbytes' wheel from PyPI, into build/peers.
#
#   scripts/peers.sh            fetch what is missing
#   scripts/peers.sh --force    fetch again
#   scripts/peers.sh --cuda     its CUDA libraries too, on a machine without an NVIDIA driver (for make gpu-bundle)
#   BITSANDBYTES=0.50.2         the version (the one whose symbols and layout bench/peer_server.c knows)
#
# Leaves build/peers/bitsandbytes/libbitsandbytes_cpu.so (and, on a machine with an NVIDIA driver, its CUDA ones) and
# build/peers/bitsandbytes.version. Exit status: 0 there, 1 could not be fetched (the reason is printed), 2 usage.
set -u
cd "$(dirname "$0")/.." || exit 1

force="" cuda=""
command -v nvidia-smi >/dev/null 2>&1 && cuda=yes
case "${1:-}" in
-h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
--force) force=yes ;;
--cuda) cuda=yes ;;
"") ;;
*) echo "peers: unknown argument $1 (see --help)" >&2; exit 2 ;;
esac

version=${BITSANDBYTES:-0.50.2}
peers=build/peers
library=$peers/bitsandbytes/libbitsandbytes_cpu.so
give_up() { echo "peers: $1" >&2; echo "peers: bitsandbytes will be missing from the comparison; the rest is not affected" >&2; exit 1; }

some_cuda() { compgen -G "$peers/bitsandbytes/libbitsandbytes_cuda*.so" >/dev/null; }
if [ -z "$force" ] && [ -e "$library" ] && { [ -z "$cuda" ] || some_cuda; } && grep -q "^bitsandbytes $version " "$peers/bitsandbytes.version" 2>/dev/null; then
    echo "peers: bitsandbytes $version is there ($peers)"
    exit 0
fi

command -v python3 >/dev/null 2>&1 || give_up "python3 is missing (apt install python3-pip)"
python3 -m pip --version >/dev/null 2>&1 || give_up "pip is missing (apt install python3-pip)"
mkdir -p "$peers" || give_up "$peers cannot be made"
work=$(mktemp -d "$peers/fetch.XXXXXX") || give_up "$peers cannot be written to"
trap 'rm -rf "$work"' EXIT

# The wheel only: its dependencies (PyTorch, gigabytes) are not needed to call its C functions.
echo "peers: fetching bitsandbytes $version from PyPI"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$work" \
    "bitsandbytes==$version" >"$work/log" 2>&1 || { tail -n 3 "$work/log" >&2; give_up "pip could not download bitsandbytes $version"; }
wheel=$(find "$work" -name '*.whl' | head -n 1)
[ -n "$wheel" ] || give_up "pip downloaded no wheel for this machine ($(uname -m))"
checksum=$(sha256sum "$wheel" | cut -d' ' -f1)
echo "peers: $(basename "$wheel")"
echo "peers: sha256 $checksum"

python3 - "$wheel" "$work/out" "$cuda" <<'PY' || give_up "the wheel could not be unpacked"
import fnmatch, sys, zipfile
wheel, out, cuda = sys.argv[1:]
wanted = ["bitsandbytes/libbitsandbytes_cpu.so", "*.dist-info/METADATA", "*.dist-info/licenses/*", "*.dist-info/LICENSE*"]
if cuda:
    wanted.append("bitsandbytes/libbitsandbytes_cuda*.so")
with zipfile.ZipFile(wheel) as z:
    names = [n for n in z.namelist() if any(fnmatch.fnmatch(n, w) for w in wanted)]
    if wanted[0] not in names:
        sys.exit("no " + wanted[0] + " in it")
    z.extractall(out, names)
PY
rm -rf "$peers"/bitsandbytes "$peers"/bitsandbytes-*.dist-info
mv "$work"/out/* "$peers"/ || give_up "$peers cannot be written to"
echo "bitsandbytes $version sha256:$checksum" > "$peers/bitsandbytes.version"
echo "peers: $library"
