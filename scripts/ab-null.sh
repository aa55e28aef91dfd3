#!/usr/bin/env bash
# Does make ab cry wolf, and does it see 5 %? Compares a revision with itself RUNS times, then with a copy of itself in which
# fb_quantize burns PLANT per cent more time, PLANTED_RUNS times. The copy is patched in a worktree; the product has no such code.
#
#   scripts/ab-null.sh                 REVISION=HEAD RUNS=20 PLANTED_RUNS=3 PLANT=5
#     FILTER=... ROUNDS= SAMPLES= LOOKS= THREADS=1 OUT=build/ab-null     as for scripts/ab.sh
#
# Writes OUT/null.md. Exit status: 0 at most one false verdict in 20 runs and every planted one caught; 1 not so; 2 it could not run.
set -u
cd "$(dirname "$0")/.." || exit 2
case "${1:-}" in
    "") ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "ab-null: unknown argument $1; settings are variables (--help)" >&2; exit 2 ;;
esac
RUNS=${RUNS:-20} PLANTED_RUNS=${PLANTED_RUNS:-3} PLANT=${PLANT:-5} OUT=${OUT:-build/ab-null}
export FILTER=${FILTER:-cpu/nf4/b64/.*512.*/hot} THREADS=${THREADS:-1} KEEP=1
sha=$(git rev-parse --verify --quiet "${REVISION:-HEAD}^{commit}") || { echo "ab-null: no such revision" >&2; exit 2; }
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) || exit 2
tree=$OUT/planted
# shellcheck disable=SC2317 # the trap calls it
clean_up() { git worktree remove --force "$tree" 2>/dev/null; git worktree prune; }
trap clean_up EXIT
trap 'exit 2' INT TERM HUP

# The time of the call, measured, and that share of it spent again: exactly PLANT per cent on any machine and shape.
plant() {
    clean_up
    git worktree add --quiet --detach "$tree" "$sha" || return 1
    cat >> "$tree/kernels/fourbit.c" <<C

#include <time.h>
static double planted_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
fb_status fb_quantize(fb_context *ctx, const void *src, fb_dtype src_dtype, fb_matrix *dst)
{
    double start = planted_now();
    fb_status status = unplanted_quantize(ctx, src, src_dtype, dst);
    double end = planted_now() + $PLANT * 0.01 * (planted_now() - start);
    while (planted_now() < end) {}
    return status;
}
C
    sed -i '0,/^fb_status fb_quantize(/s//static fb_status unplanted_quantize(/' "$tree/kernels/fourbit.c"
}

run() { OUT=$OUT/ab scripts/ab.sh >"$OUT/last.txt" 2>"$OUT/last.err"; }
tell() { sed -n 's/^\(SLOWER\|faster\|ambiguous\|same\) .*/&/p' "$OUT/last.txt" | awk '{ printf "%s%s %s %s %%", (NR > 1 ? "; " : ""), $1, $2, $5 }'; }
words=(pass regression 'could not' ambiguous)
load() { cut -d' ' -f1 /proc/loadavg; }

rows="" false=0 ambiguous=0 started=$SECONDS
for ((i = 1; i <= RUNS; i++)); do
    before=$(load)
    BASE=$sha NEW=$sha run
    status=$?
    [ $status -ne 2 ] || { cat "$OUT/last.err" >&2; exit 2; }
    # A wrong "faster" passes, and is as false as a wrong SLOWER.
    wrong=$(grep -cE '^(SLOWER|faster|CHANGED|BROKEN) ' "$OUT/last.txt")
    [ "$wrong" -eq 0 ] || false=$((false + 1))
    [ $status -ne 3 ] || ambiguous=$((ambiguous + 1))
    rows+="| null $i | ${words[status]} | $(find "$OUT/ab/base" -name '*.json' | wc -l) | $before | $(tell) |"$'\n'
    echo "ab-null: null $i of $RUNS: ${words[status]}, $false false so far" >&2
done
caught=0
if [ "$PLANTED_RUNS" -gt 0 ]; then plant || exit 2; fi
for ((i = 1; i <= PLANTED_RUNS; i++)); do
    before=$(load)
    BASE=$sha NEW=$tree run
    status=$?
    [ $status -ne 2 ] || { cat "$OUT/last.err" >&2; exit 2; }
    if grep -q '^SLOWER *quantize/' "$OUT/last.txt"; then caught=$((caught + 1)); fi
    rows+="| planted $PLANT % in quantize $i | ${words[status]} | $(find "$OUT/ab/base" -name '*.json' | wc -l) | $before | $(tell) |"$'\n'
    echo "ab-null: planted $i of $PLANTED_RUNS: ${words[status]}, $caught caught so far" >&2
done

{
    echo "# Null experiment of make ab"
    echo
    echo "\`scripts/ab-null.sh\`, $(date -u +%Y-%m-%d), revision ${sha:0:12}, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores," \
        "filter \`$FILTER\`, threads $THREADS, $((SECONDS - started)) s in all. Load is the one-minute average before the run; ours adds one."
    echo
    echo "- $RUNS comparisons of the revision with itself: **$false false verdicts** (SLOWER or faster), $ambiguous ambiguous, the rest same."
    echo "- $PLANTED_RUNS comparisons with a copy whose quantize takes $PLANT % longer: **$caught caught**."
    echo
    echo "| run | verdict | rounds | load | rows |"
    echo "|---|---|--:|--:|---|"
    printf '%s' "$rows"
} > "$OUT/null.md"
cat "$OUT/null.md"
[ $((false * 20)) -le "$RUNS" ] && [ $caught -eq "$PLANTED_RUNS" ]
