#!/usr/bin/env bash
# Deterministic figures of every kernel against committed baselines: no GPU, no quiet machine needed.
#
#   scripts/gates.sh [--update] [hashes] [products] [instructions] [counters] [ptxas]      none named: all
#
#   hashes        outputs of quantize, dequantize, 8-bit, normalise, AdamW on fixed inputs: one baseline for every backend
#   products      outputs of gemm and gemm_dx: a baseline for each backend and instruction set
#   instructions  instructions, loads and stores of the CPU kernels under callgrind, within 0.5 %: for each compiler and instruction set
#   counters      barriers, sectors, conflicts, accesses by width of the CUDA kernels in the SIMT executor
#   ptxas         registers, spills, shared memory of the CUDA kernels, for each architecture (make check-cuda-resources)
#   BACKENDS='reference cpu-portable cpu-avx2 cpu-avx512 cuda-simt'   for hashes and products
#   --update      rewrite the baselines in validate/gates/baselines; look at the diff before committing it
#   GATES_PROGRAM=build/bin/fourbit-gates  BASELINES=validate/gates/baselines  TOLERANCE=0.5
#
# A gate that cannot run here is listed with its reason. Exit status: 0 none failed, 1 a figure changed, 2 usage or nothing ran.
set -u
cd "$(dirname "$0")/.." || exit 2
program=${GATES_PROGRAM:-build/bin/fourbit-gates} baselines=${BASELINES:-validate/gates/baselines} tolerance=${TOLERANCE:-0.5}
usage() { sed -n '2,16s/^# \{0,1\}//p' "$0"; }

update="" wanted=()
for word in "$@"; do
    case "$word" in
    -h | --help) usage; exit 0 ;;
    --update) update=yes ;;
    hashes | products | instructions | counters | ptxas) wanted+=("$word") ;;
    *) echo "gates: $word is no gate (--help)" >&2; exit 2 ;;
    esac
done
[ ${#wanted[@]} -gt 0 ] || wanted=(hashes products instructions counters ptxas)
[ -x "$program" ] || { echo "gates: $program is not there (make gates builds it)" >&2; exit 2; }
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT

passed=0 failed=() skipped=()
skip() { skipped+=("$1: $2"); }

# check gate[/backend] baseline-file figures tolerance heading...
check() {
    local gate=$1 file=$2 figures=$3 percent=$4 name
    shift 4
    name=$(basename "$file")
    if [ -n "$update" ]; then
        { printf '# %s\n' "$@" "Rewritten by: make gates-update GATES=${gate%%/*}" && cat "$figures"; } > "$work/new" && mkdir -p "$baselines" && mv "$work/new" "$file" || exit 2
        echo "gate $gate: wrote $file ($(wc -l < "$figures") lines)"
        passed=$((passed + 1))
        return
    fi
    if [ ! -e "$file" ]; then
        skip "$gate" "no baseline $name: not gated (make gates-update GATES=${gate%%/*} records one)"
        return
    fi
    awk -v tolerance="$percent" -v limit="${LIMIT:-25}" -f scripts/gate-diff.awk "$file" "$figures" > "$work/diff"
    case $? in
    0) echo "gate $gate: pass ($name, $(wc -l < "$figures") lines)"; passed=$((passed + 1)) ;;
    1) echo "gate $gate: FAILED ($name)"; cat "$work/diff"; failed+=("$gate") ;;
    *) echo "gate $gate: FAILED: $file or its counterpart has no figures"; failed+=("$gate") ;;
    esac
}

# figures gate command... : runs it into $work/figures. 1: skipped, 2: failed; both told.
figures() {
    local gate=$1 status
    shift
    "$@" > "$work/figures" 2> "$work/errors"
    status=$?
    [ $status -ne 77 ] || { skip "$gate" "$(head -n 1 "$work/errors")"; return 1; }
    if [ $status -ne 0 ]; then
        echo "gate $gate: FAILED: $* ended with status $status"
        head -n 10 "$work/errors" | sed 's/^/  /'
        failed+=("$gate")
        return 2
    fi
    [ ! -s "$work/errors" ] || head -n 5 "$work/errors" | sed 's/^/  /' # where it leaves the reference
}

# each_backend function: calls it with a title, a backend, and what must stand in the environment
each_backend() {
    local title
    for title in ${BACKENDS:-reference cpu-portable cpu-avx2 cpu-avx512 cuda-simt}; do
        case $title in
        cpu-*) "$1" "$title" cpu "FOURBIT_CPU=${title#cpu-}" ;;
        cuda-simt) "$1" "$title" cuda FOURBIT_CUDA=simt ;;
        *) "$1" "$title" "$title" FOURBIT_CPU= ;;
        esac
    done
}

hash_backend() {
    [ -z "$update" ] || [ "$1" = reference ] || return 0 # one baseline, and the reference writes it
    figures "hashes/$1" env "$3" "$program" hashes "$2" || return 0
    check "hashes/$1" "$baselines/hashes.txt" "$work/figures" 0 "Hashes (FNV-1a) of outputs on fixed inputs, written by the reference and the same for every backend."
}

product_backend() {
    figures "products/$1" env "$3" "$program" products "$2" || return 0
    check "products/$1" "$baselines/products-$1.txt" "$work/figures" 0 "Hashes (FNV-1a) of products by $1 on fixed inputs."
}

count_instructions() {
    OMP_NUM_THREADS=1 LD_BIND_NOW=1 valgrind --tool=callgrind --cache-sim=yes --toggle-collect=gate_counted --dump-after=gate_counted \
        --callgrind-out-file="$work/callgrind" --log-file="$work/valgrind.log" "$program" instructions > "$work/names" 2> "$work/valgrind.err" || {
        tail -n 3 "$work/valgrind.log" "$work/valgrind.err" >&2
        return 1
    }
    local i=0 name
    while read -r name; do # summary: Ir Dr Dw, then misses of a cache that is not this machine's
        i=$((i + 1))
        awk -v name="$name" '$1 == "summary:" { print name " instructions=" $2 " loads=" $3 " stores=" $4; found = 1 } END { exit !found }' "$work/callgrind.$i" ||
            { echo "no count of $name" >&2; return 1; }
    done < "$work/names"
    [ $i -gt 0 ]
}

gate_hashes() { each_backend hash_backend; }
gate_products() { each_backend product_backend; }
gate_counters() {
    figures counters "$program" counters || return 0
    check counters "$baselines/counters.txt" "$work/figures" 0 "What the SIMT executor counts of each kernel launch: case:launch:kernel. A counter of 0 is left out."
}
gate_instructions() {
    command -v valgrind > /dev/null 2>&1 || { skip instructions "valgrind is missing (apt install valgrind)"; return; }
    local key
    key=$("$program" compiler)-$(valgrind -q "$program" variant cpu 2> /dev/null) # what valgrind's processor has, not this one
    figures instructions count_instructions || return 0
    check instructions "$baselines/instructions-$key.txt" "$work/figures" "$tolerance" \
        "What one call executes, one thread, under callgrind: $key. Gated within $tolerance %."
}
gate_ptxas() {
    grep -qs '^check-cuda-resources:' kernels/cuda/*.mk validate/*.mk validate/*/*.mk Makefile || { skip ptxas "this tree has no make check-cuda-resources"; return; }
    [ "${CUDA:-1}" != 0 ] || { skip ptxas "CUDA=0"; return; }
    local target='check-cuda-resources'
    [ -n "${NVCC:-}" ] || command -v nvcc > /dev/null 2>&1 || [ -x /usr/local/cuda/bin/nvcc ] || { skip ptxas "nvcc is missing"; return; }
    [ -z "$update" ] || target='cuda-resources'
    if make --no-print-directory "$target" > "$work/ptxas" 2>&1; then
        echo "gate ptxas: pass (make $target)"
        passed=$((passed + 1))
    else
        echo "gate ptxas: FAILED ($target)"
        tail -n 25 "$work/ptxas" | sed 's/^/  /'
        failed+=(ptxas)
    fi
}

for gate in "${wanted[@]}"; do "gate_$gate"; done
for reason in "${skipped[@]}"; do echo "not run: $reason"; done
[ ${#failed[@]} -eq 0 ] || { echo "gates: FAILED: $(printf '%s\n' "${failed[@]}" | sort -u | tr '\n' ' ')(intended? make gates-update, and commit the diff)"; exit 1; }
[ "$passed" -gt 0 ] || { echo "gates: nothing ran" >&2; exit 2; }
echo "gates: $passed passed, ${#skipped[@]} not run"
