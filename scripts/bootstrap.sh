#!/usr/bin/env bash
# Install what the suite needs and is missing, with apt (through sudo when not root), and say what is there.
#
#   scripts/bootstrap.sh                what `make bench` and `make test` need
#   scripts/bootstrap.sh --with clang   also clang with its sanitizer and OpenMP runtimes (make fuzz, CI)
#   scripts/bootstrap.sh --with lint    also cppcheck and shellcheck (make lint)
#   scripts/bootstrap.sh --with gates   also valgrind (make gates: instruction counts)
#   scripts/bootstrap.sh --with train   also vim's documentation, prose to train a base on (make train)
#   NO_INSTALL=1                        install nothing: list what is missing, exit 1 if anything needed is
#   QUIET=1                             print only when something is missing
set -u

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }

want="base"
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help) usage; exit 0 ;;
    --with) [ $# -ge 2 ] || { echo "bootstrap: --with needs a name: clang, lint, gates or train" >&2; exit 2; }
        case "$2" in clang | lint | gates | train) want="$want $2" ;; *) echo "bootstrap: --with $2: there are clang, lint, gates and train" >&2; exit 2 ;; esac
        shift ;;
    *) echo "bootstrap: unknown argument $1 (see --help)" >&2; exit 2 ;;
    esac
    shift
done

has_command() { command -v "$1" >/dev/null 2>&1; }
has_library() { has_command pkg-config && pkg-config --exists "$1" 2>/dev/null; }
has_pip() { has_command python3 && python3 -m pip --version >/dev/null 2>&1; }
has_clang_omp() { has_command clang && echo 'int main(void){return 0;}' | clang -fopenmp -fsanitize=address,fuzzer-no-link -x c - -o /dev/null 2>/dev/null; }
has_prose() { compgen -G '/usr/share/vim/vim*/doc/*.txt' >/dev/null; }

# group | what it is for | how to see it | Debian package
needs() {
    cat <<'LIST'
base|C compiler|has_command gcc|gcc
base|C++ compiler (benchmark shim, SIMT executor)|has_command g++|g++
base|C library headers|test -e /usr/include/stdio.h|libc6-dev
base|make|has_command make|make
base|pkg-config|has_command pkg-config|pkg-config
base|JSON (checkpoint headers, results)|has_library jansson|libjansson-dev
base|CUnit (tests)|has_library cunit|libcunit1-dev
base|Google Benchmark|has_library benchmark|libbenchmark-dev
base|OpenBLAS (dense peer)|has_library openblas|libopenblas-openmp-dev
base|gnuplot (plots)|has_command gnuplot|gnuplot-nox
base|pip (fetches the peer library)|has_pip|python3-pip
clang|clang|has_command clang|clang
clang|clang OpenMP, sanitizer and fuzzer runtimes|has_clang_omp|libomp-dev libclang-rt-dev
lint|cppcheck|has_command cppcheck|cppcheck
lint|shellcheck|has_command shellcheck|shellcheck
gates|valgrind (instruction counts)|has_command valgrind|valgrind
train|prose to train a base on|has_prose|vim-runtime
LIST
}

# pkg-config comes first in the list, but a library is only seen once it is there: look twice.
missing() {
    local group label probe package
    while IFS='|' read -r group label probe package; do
        case " $want " in *" $group "*) ;; *) continue ;; esac
        eval "$probe" || printf '%s|%s\n' "$label" "$package"
    done < <(needs)
}

report_optional() {
    local line
    while IFS='|' read -r label probe; do
        if eval "$probe" >/dev/null 2>&1; then line="✓"; else line="✗"; fi
        printf '  %s %s\n' "$line" "$label"
    done <<'LIST'
nvcc: CUDA kernels are compiled|has_command nvcc || test -x /usr/local/cuda/bin/nvcc
NVIDIA GPU: CUDA kernels are run|has_command nvidia-smi && nvidia-smi -L
clang: make fuzz, second compiler|has_command clang
oneDNN 2, libdnnl-dev: a dense bf16 peer|test -e /usr/include/oneapi/dnnl/dnnl.h
AVX2|grep -qw avx2 /proc/cpuinfo
AVX-512 (F, BW, DQ, VL)|grep -qw avx512bw /proc/cpuinfo && grep -qw avx512vl /proc/cpuinfo
AVX512-BF16|grep -qw avx512_bf16 /proc/cpuinfo
AMX bf16|grep -qw amx_bf16 /proc/cpuinfo
LIST
}

todo=$(missing)
if [ -z "$todo" ]; then
    [ -n "${QUIET:-}" ] || { echo "bootstrap: everything needed is installed; optional:"; report_optional; }
    exit 0
fi

echo "bootstrap: missing:"
printf '%s\n' "$todo" | awk -F'|' '{printf "  ✗ %-46s %s\n", $1, $2}'
mapfile -t packages < <(printf '%s\n' "$todo" | cut -d'|' -f2 | tr ' ' '\n' | sort -u)
if [ -n "${NO_INSTALL:-}" ]; then
    echo "bootstrap: NO_INSTALL is set. To install: apt-get install ${packages[*]}"
    exit 1
fi
if ! has_command apt-get; then
    echo "bootstrap: this system has no apt-get; install the above with its own package manager" >&2
    exit 1
fi
root=()
if [ "$(id -u)" -ne 0 ]; then
    has_command sudo || { echo "bootstrap: not root and no sudo; run as root: apt-get install ${packages[*]}" >&2; exit 1; }
    root=(sudo)
fi
echo "bootstrap: installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { "${root[@]}" apt-get update && "${root[@]}" apt-get install -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "bootstrap: apt-get failed (above: the end of its output; all of it: $log)" >&2
    exit 1
fi
rm -f "$log"
todo=$(missing)
if [ -n "$todo" ]; then
    echo "bootstrap: installed, but still not found:" >&2
    printf '%s\n' "$todo" >&2
    exit 1
fi
echo "bootstrap: done; optional:"
report_optional
