#!/usr/bin/env bash
# Everything there is to do on a machine with a GPU, into one folder: facts, the tests on device memory, golden vectors,
# compute-sanitizer, the benchmarks beside their peers, a page of summary, and the goals beside what was measured.
#
#   gpu-report.sh [options]
#     --out DIR         the folder (build/results/gpu-report); what is done there already is not done again
#     --stage N         only this stage, by number or name (--list), done before or not
#     --bin DIR         the programs (beside this script in a bundle, else build/gpu/bin)
#     --profile P       of the benchmarks: quick (default) or full
#     --require-gpu     fail (exit 3) where there is no GPU; without it such a machine is told so, and that is all
#     --list            the stages
#     --help
#
# A stage ends within ten minutes (STAGE_SECONDS, 570; a large model's layers in --profile full want 3000). Interrupted, run it
# again: it goes on with the stage it was in.
# Needs the programs of `make gpu-bundle`, bash and coreutils. The GPU's settings are left as they are.
# Exit status: 0 all stages passed or could not run here, 1 a stage failed, 2 usage, 3 no GPU and --require-gpu.
set -u
here=$(cd "$(dirname "$0")" && pwd)
out=build/results/gpu-report only="" bin="" profile=quick require=""
limit=${STAGE_SECONDS:-570}
models=(qwen2.5-0.5b qwen2.5-1.5b llama-2-7b llama-2-13b llama-3-8b llama-3-70b)
stages=(facts tests large golden sanitizer bench-4bit bench-8bit bench-products pager train bench-lora "${models[@]/#/layers-}" tune)

usage() { echo "gpu-report: $1 (see --help)" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case "$1" in
    --out | --stage | --bin | --profile) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    esac
    case "$1" in
    --out) out=$2; shift ;;
    --stage) only=$2; shift ;;
    --bin) bin=$2; shift ;;
    --profile) profile=$2; shift ;;
    --require-gpu) require=yes ;;
    --list) for i in "${!stages[@]}"; do echo "$((i + 1)) ${stages[i]}"; done; exit 0 ;;
    -h | --help) sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) usage "unknown argument $1" ;;
    esac
    shift
done
[ "$profile" = quick ] || [ "$profile" = full ] || usage "--profile $profile: expected quick or full"
if [ -n "$only" ]; then
    number=""
    for i in "${!stages[@]}"; do
        if [ "$only" = "$((i + 1))" ] || [ "$only" = "${stages[i]}" ]; then number=$i; fi
    done
    [ -n "$number" ] || usage "--stage $only: the stages are 1 ... ${#stages[@]} (--list)"
fi
if [ -z "$bin" ]; then
    if [ -x "$here/bin/fourbit-gpu" ]; then bin=$here/bin; else bin=$here/../build/gpu/bin; fi
fi
[ -x "$bin/fourbit-gpu" ] || usage "no programs in $bin (make gpu-bundle builds them)"
bundle=$(dirname "$bin")
peers=$bundle/peers
[ -d "$peers" ] || peers=build/peers
[ -d "$bundle/golden" ] && export FOURBIT_GOLDEN=$bundle/golden
mkdir -p "$out/state" || usage "--out $out cannot be made"
export FOURBIT_CUDA=gpu

# ---- is there a GPU -----------------------------------------------------------------------------------------------
facts=$("$bin/fourbit-gpu" --facts 2>&1)
case $? in
0) gpu=yes ;;
77) gpu="" ;;
*)
    echo "gpu-report: $bin/fourbit-gpu does not run here:" >&2
    echo "$facts" >&2
    exit 1
    ;;
esac

# ---- stages: each runs in a folder of its own and says how it went in $verdict ----------------------------------------
# Within the time that is left to the stage; 124: cut off. TERM lets the benchmark write what it has.
within() {
    local left=$((deadline - SECONDS))
    [ "$left" -gt 0 ] || return 124
    timeout -k 15 "$left" "$@"
}
judge() { # status, what passed
    case "$1" in
    0) verdict="passed: $2" ;;
    77) verdict="not run: no GPU" ;;
    124 | 130 | 137 | 143) verdict="failed: cut off after $limit s; what was done is in its folder" ;;
    *) verdict="failed: exit status $1" ;;
    esac
}

stage_facts() {
    printf '%s\n' "$facts" | tee "$dir/device.txt"
    { uname -a; cat /proc/cpuinfo /proc/meminfo; } > "$dir/host.txt" 2>/dev/null
    if command -v nvidia-smi > /dev/null 2>&1; then
        within nvidia-smi -q > "$dir/nvidia-smi.txt" 2>&1
        within nvidia-smi > "$dir/nvidia-smi-short.txt" 2>&1
    fi
    verdict="passed: $(sed -n 's/^gpu  *//p' "$dir/device.txt" | head -n 1)"
}

# The tests that can run on a device; `large` (2^31 elements) is a stage of its own, and so are the training loop's.
run_tests() { # program, its arguments
    local program=$1
    shift
    if [ ! -x "$bin/$program" ]; then verdict="not run: the bundle has no $program"; return; fi
    within "$bin/$program" "$@" > "$dir/log.txt" 2>&1
    local status=$?
    tail -n 25 "$dir/log.txt"
    judge "$status" "$(awk '/^ *tests/ { t = $0 } /^ *asserts/ { a = $0 } END { gsub(/ +/, " ", t); gsub(/ +/, " ", a); print substr(t, 2) ";" a }' "$dir/log.txt")"
    if [ "$status" -eq 77 ]; then verdict="not run: $(tail -n 1 "$dir/log.txt")"; fi
}
stage_tests() { run_tests test_fourbit_gpu --backend cuda; }
stage_large() { run_tests test_fourbit_gpu --backend cuda --filter large.; }
stage_train() { run_tests test_train_gpu; }

stage_golden() {
    if [ ! -x "$bin/capture-golden" ]; then verdict="not run: the bundle has no capture-golden"; return; fi
    within "$bin/capture-golden" "$dir" > "$dir/log.txt" 2>&1
    local status=$?
    cat "$dir/log.txt"
    judge "$status" "$(find "$dir" -name 'sm_*.txt' | wc -l) file(s), for validate/simt/golden"
}

stage_sanitizer() {
    local tool sanitizer status worst=0 filter
    sanitizer=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" 2>/dev/null)
    if [ -z "$sanitizer" ]; then verdict="not run: compute-sanitizer is missing"; return; fi
    # Buffers that end where their allocations end; a small share of the cases, as each launch is 10 to 100 times slower.
    export FOURBIT_MIRROR=tight FOURBIT_TEST_SCALE=0.05
    for tool in memcheck racecheck initcheck synccheck; do
        for filter in ${SANITIZER_FILTERS:-quantize.zeros dequantize.custom double_quant. blockwise8.every_block normalize.every_count adamw.}; do
            within "$sanitizer" --tool "$tool" --error-exitcode 9 "$bin/test_fourbit_gpu" --backend cuda --filter "$filter" \
                > "$dir/$tool-$filter.txt" 2>&1
            status=$?
            printf '%-10s %-22s exit %d: %s\n' "$tool" "$filter" "$status" "$(grep 'SUMMARY' "$dir/$tool-$filter.txt" | tail -n 1)" |
                tee -a "$dir/table.txt"
            [ "$status" -eq 0 ] || worst=$status
        done
    done
    unset FOURBIT_MIRROR FOURBIT_TEST_SCALE
    judge "$worst" "memcheck, racecheck, initcheck, synccheck"
}

bench() { # filter, models
    within "$bin/fourbit-gpu" --profile "$profile" --peers "$peers" --models "${2:-none}" --filter "$1" --out "$dir" > "$dir/table.txt" 2> "$dir/log.txt"
    local status=$?
    cat "$dir/table.txt"
    judge "$status" "$(tail -n 1 "$dir/table.txt")"
    if [ "$status" -eq 1 ]; then verdict="failed: $(tail -n 1 "$dir/table.txt" | grep . || tail -n 1 "$dir/log.txt")"; fi
}
stage_bench-4bit() { bench '^(quantize|dequantize)/'; }
stage_bench-8bit() { bench '^(quantize8|dequantize8|adamw32|adamw8)/'; }
stage_bench-products() { bench '^(gemm|gemm_dx)/'; }
stage_bench-lora() { bench '^(lora|lora_backward)/'; }
stage_layers() { bench '' "$1"; }

# Which path of the product is fastest for which M: the table that `make tune` would write, and nothing is replaced.
stage_tune() {
    local table=$bundle/dispatch_table.h
    [ -e "$table" ] || table=$here/../kernels/cuda/dispatch_table.h
    if [ ! -x "$bin/fourbit-tune" ]; then verdict="not run: the bundle has no fourbit-tune"; return; fi
    within "$bin/fourbit-tune" --dry-run --table "$table" > "$dir/table.txt" 2> "$dir/log.txt"
    local status=$?
    cat "$dir/table.txt"
    judge "$status" "the fastest paths and the dispatch table that follows; make tune writes it"
}

# Optimizer state that is paged while memory is taken away: the same bits as resident (validate/train/spike.h).
stage_pager() {
    local kind state8 status worst=0
    if [ ! -x "$bin/fourbit-spike" ]; then verdict="not run: the bundle has no fourbit-spike"; return; fi
    for kind in managed pinned; do
        for state8 in "" --state8; do
            within "$bin/fourbit-spike" --kind "$kind" $state8 --folder "$dir" > "$dir/$kind$state8.txt" 2>&1
            status=$?
            cat "$dir/$kind$state8.txt"
            [ "$status" -eq 0 ] || worst=$status
        done
    done
    judge "$worst" "resident, paged, with a hog, saved and loaded: the same bits, managed and pinned"
}

run_stage() { # index
    local name=${stages[$1]} state began=$SECONDS
    state=$out/state/$(($1 + 1))-$name
    dir=$out/$name verdict="failed: it said nothing" deadline=$((SECONDS + limit))
    if [ -e "$state.running" ]; then echo "stage $(($1 + 1)) ($name) was interrupted; it begins again"; fi
    rm -rf "$dir" "$state"
    mkdir -p "$dir"
    : > "$state.running"
    echo "== stage $(($1 + 1)) of ${#stages[@]}: $name"
    if [ -z "$gpu" ]; then verdict="not run: no GPU"
    elif [[ $name == layers-* ]]; then stage_layers "${name#layers-}"
    else "stage_$name"; fi
    printf '%s (%d s)\n' "$verdict" $((SECONDS - began)) > "$state.new" && mv "$state.new" "$state"
    rm -f "$state.running"
    echo "== $(cat "$state")"
}

# ---- summary ------------------------------------------------------------------------------------------------------------
# One line a row: what fits on a page.
rows() { # table
    awk '$2 == "cuda" && $3 ~ /^(nf4|fp4|int4|int4_affine|fp32|8bit|signed)$/ { print substr($0, 1, 150) } /^ceilings|^skipped|^FAILED|^ABOVE/ { print substr($0, 1, 150) }' "$1" | head -n 24
}
summary() {
    local i state
    echo "fourbit on a GPU: $(date -u +%Y-%m-%dT%H:%MZ), profile $profile"
    if [ -e "$bundle/MANIFEST" ]; then head -n 2 "$bundle/MANIFEST"; fi
    echo
    if [ -n "$gpu" ]; then printf '%s\n' "$facts"; else printf '%s\n' "$facts" | head -n 1; fi
    echo
    for i in "${!stages[@]}"; do
        state=$out/state/$((i + 1))-${stages[i]}
        if [ -e "$state.running" ]; then verdict="interrupted"
        elif [ -e "$state" ]; then verdict=$(cat "$state")
        else verdict="not yet"; fi
        printf '%2d %-19s %s\n' $((i + 1)) "${stages[i]}" "$verdict"
    done
    if [ -s "$out/goals.txt" ]; then printf '\nagainst the goals (goals.txt has all): %s\n' "$(tail -n 1 "$out/goals.txt")"; fi
    for i in bench-4bit bench-8bit bench-products bench-lora; do
        [ -s "$out/$i/table.txt" ] || continue
        printf '\n%s (median us, [p10-p90], GB/s, %% of the copy bandwidth, TFLOP/s, %% of the bf16 peak, times peers)\n' "$i"
        rows "$out/$i/table.txt"
    done
    if [ -s "$out/sanitizer/table.txt" ]; then printf '\ncompute-sanitizer\n'; cat "$out/sanitizer/table.txt"; fi
}

# ---- goals: every benchmark's rows together. A goal that is missed is no failure of this report. -------------------------
goals() {
    local results=("$out"/*/bench.json)
    rm -f "$out/goals.txt"
    [ -e "${results[0]}" ] || return 0
    if [ ! -x "$bin/fourbit-goals" ]; then echo "goals: not compared: no fourbit-goals in $bin"; return 0; fi
    "$bin/fourbit-goals" "${results[@]}" > "$out/goals.txt"
    [ $? -ne 2 ] || { echo "goals: not compared: fourbit-goals could not read the results" >&2; rm -f "$out/goals.txt"; }
}

trap 'echo; echo "gpu-report: interrupted; the same command goes on from here" >&2; summary > "$out/summary.txt"; exit 130' INT TERM
if [ -n "$only" ]; then
    run_stage "$number"
else
    for i in "${!stages[@]}"; do
        state=$out/state/$((i + 1))-${stages[i]}
        # "no GPU" is not an outcome to keep: the folder may be carried to a machine that has one
        if [ -e "$state" ] && ! { [ -n "$gpu" ] && grep -q '^not run: no GPU' "$state"; }; then
            echo "== stage $((i + 1)) of ${#stages[@]}: ${stages[i]}: done before: $(cat "$state")"
        else
            run_stage "$i"
        fi
    done
fi
goals
summary > "$out/summary.new" && mv "$out/summary.new" "$out/summary.txt"
echo
cat "$out/summary.txt"
if [ -s "$out/goals.txt" ]; then echo; cat "$out/goals.txt"; fi
if [ -z "$gpu" ] && [ -n "$require" ]; then echo "gpu-report: no GPU, and one was required" >&2; exit 3; fi
! cat "$out"/state/[0-9]* | grep -q '^failed'
