#!/usr/bin/env bash
# Is this tree slower than that revision? Builds both side by side, times them in turn (A B B A A B ...) on this machine,
# and gives fourbit-compare's verdict on the rounds. Within a round both programs run at once and pass each other the turn
# after each sample (where both know --turns), so that a sample and its counterpart are milliseconds apart.
#
#   BASE=main scripts/ab.sh            BASE: a git revision, or a folder with a source tree
#     NEW=.                            the same; . is the working tree, uncommitted changes and all
#     FILTER='^gemm/cpu/nf4/'          benchmark names, a regular expression
#     ROUNDS=30 SAMPLES=15 LOOKS=4       rounds between two looks at the verdict; samples of a case in each; looks at most:
#                                        as long as it is ambiguous it goes on, and alpha is shared among the looks
#     PROFILE=quick BACKENDS= THREADS=   as for fourbit-bench
#     PROGRAM=fourbit-gpu                on a machine with a GPU (default fourbit-bench): whole runs in turn
#     OUT=build/ab                     keeps base/ and new/ (a bench.json a round) and verdict.{txt,json,md,xml}
#     ALLOW=outputs,missing            what may differ (fourbit-compare --help); compiler and dirty trees always may
#     THRESHOLD=3                      per cent
#     KEEP=1                           keep the built trees in OUT for the next run (a revision is found again)
#
# The caller's tree, index and branches are not touched: revisions are checked out as worktrees under OUT and removed.
# Exit status: 0 pass, 1 regression, 2 cannot compare (does not build, a check failed to run, usage), 3 ambiguous.
set -u
cd "$(dirname "$0")/.." || exit 2
case "${1:-}" in -h | --help) sed -n '2,21s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
give_up() { echo "ab: $*" >&2; exit 2; }

[ -n "${BASE:-}" ] || give_up "BASE=<git revision> is needed (--help)"
NEW=${NEW:-.} ROUNDS=${ROUNDS:-30} SAMPLES=${SAMPLES:-15} LOOKS=${LOOKS:-4} OUT=${OUT:-build/ab} PROFILE=${PROFILE:-quick} PROGRAM=${PROGRAM:-fourbit-bench}
[[ $ROUNDS =~ ^[1-9][0-9]{0,2}$ ]] || give_up "ROUNDS=$ROUNDS: 1 ... 999"
[[ $LOOKS =~ ^[1-9]$ ]] || give_up "LOOKS=$LOOKS: 1 ... 9"
mkdir -p "$OUT" || give_up "OUT=$OUT cannot be made"
OUT=$(cd "$OUT" && pwd)

worktrees=()
# shellcheck disable=SC2317 # the trap calls it
clean_up() {
    local job
    for job in $(jobs -p); do kill "$job" 2>/dev/null; done
    for tree in "${worktrees[@]}"; do git worktree remove --force "$tree" 2>/dev/null || rm -rf "$tree"; done
    git worktree prune
}
trap clean_up EXIT
trap 'exit 2' INT TERM HUP

# prepare side what -> prints the folder of the built programs
prepare() {
    local side=$1 what=$2 tree sha build log=$OUT/$1.build.log
    if [ -d "$what" ]; then
        tree=$(cd "$what" && pwd) sha=""
        build=$OUT/build-$side
    else
        sha=$(git rev-parse --verify --quiet "$what^{commit}") || give_up "$what is neither a revision nor a folder"
        build=$OUT/build-$sha
        if [ ! -x "$build/bin/$PROGRAM" ] || [ ! -e "$build/whole" ]; then
            tree=$OUT/tree-$side
            [ ! -e "$tree" ] || git worktree remove --force "$tree" 2>/dev/null || rm -rf "$tree"
            git worktree prune
            git worktree add --quiet --detach "$tree" "$sha" || give_up "git worktree add $tree failed"
        fi
    fi
    if [ -n "${tree:-}" ]; then
        echo "ab: building $side ($what${sha:+ = ${sha:0:12}})" >&2
        if ! make -C "$tree" -j"$(nproc)" BUILD="$build" ${CUDA:+CUDA="$CUDA"} "$build/bin/$PROGRAM" >"$log" 2>&1; then
            tail -n 15 "$log" >&2
            give_up "$side ($what) does not build; all of it: $log"
        fi
        [ -z "$sha" ] || touch "$build/whole"
    fi
    echo "$build/bin"
}

# A subshell's worktree has to be known here for clean_up.
[ -d "$BASE" ] || worktrees+=("$OUT/tree-base")
[ -d "$NEW" ] || worktrees+=("$OUT/tree-new")
base=$(prepare base "$BASE") || exit 2
new=$(prepare new "$NEW") || exit 2
if [ -z "${COMPARE:-}" ]; then # the verdict is this tree's, whatever is compared
    COMPARE=$OUT/build-verdict/bin/fourbit-compare
    make BUILD="$OUT/build-verdict" "$COMPARE" >"$OUT/verdict.build.log" 2>&1 || give_up "fourbit-compare does not build: $OUT/verdict.build.log"
fi

arguments=(--profile "$PROFILE")
[ -z "${FILTER:-}" ] || arguments+=(--filter "$FILTER")
[ -z "${BACKENDS:-}" ] || arguments+=(--backends "$BACKENDS")
[ -z "${THREADS:-}" ] || arguments+=(--threads "$THREADS")
# Ours alone is a fraction of the time, if both know how.
if "$base/$PROGRAM" --help | grep -q -- --alone && "$new/$PROGRAM" --help | grep -q -- --alone; then arguments+=(--alone); else arguments+=(--peers none); fi

# Two pipes in a ring, held open here so that neither program waits for the other to open its end.
turns=""
if "$base/$PROGRAM" --help | grep -q -- --turns && "$new/$PROGRAM" --help | grep -q -- --turns; then
    turns=yes
    rm -f "$OUT/ring-base" "$OUT/ring-new"
    mkfifo "$OUT/ring-base" "$OUT/ring-new" || give_up "no pipes in $OUT"
    exec 8<> "$OUT/ring-base" 9<> "$OUT/ring-new"
fi

# Which physical pages a program happens to get is worth 30 % to a kernel whose data just fit a cache (measured: dequantize
# 512x512 hot, 48 or 33 us), and stays as it is for the whole launch. Huge pages leave less to chance.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=2147483648:glibc.malloc.trim_threshold=4294967296}

rm -rf "$OUT/base" "$OUT/new" "$OUT/round"
mkdir -p "$OUT/base" "$OUT/new"
# A failed check (status 1) leaves a row that fourbit-compare calls BROKEN; anything above is no result.
# One thread each: on the same core, another one every two rounds, or the ratio is of two cores and their neighbours.
pin=()
choose_core() {
    local cores
    [ "${THREADS:-}" = 1 ] && command -v taskset >/dev/null 2>&1 || return 0
    mapfile -t cores < <(taskset -cp $$ | sed 's/.*: //' | tr ',' '\n' | awk -F- '{ for (i = $1; i <= $NF; i++) print i }')
    pin=(taskset -c "${cores[$(($1 / 2 % ${#cores[@]}))]}")
}
bench() { "${pin[@]}" "$2/$PROGRAM" "${arguments[@]}" "${@:3}" --out "$OUT/round/$1" >"$OUT/round.$1.log" 2>&1; }
keep() {
    local side=$1 number=$2 status=$3
    [ "$status" -le 1 ] || { tail -n 5 "$OUT/round.$side.log" >&2; give_up "$side: $PROGRAM ended with status $status"; }
    mv "$OUT/round/$side/bench.json" "$OUT/$side/$number.json" || give_up "$side: no result"
}
both_in_turn() { # the first to sample is $1
    local one two status
    while read -r -t 0 -u 8; do read -r -n 1 -u 8; done # the last byte of the round before
    while read -r -t 0 -u 9; do read -r -n 1 -u 9; done
    if [ "$1" = base ]; then
        printf t >&8
        bench base "$base" --turns "8,9,$SAMPLES" & one=$!
        bench new "$new" --turns "9,8,$SAMPLES" & two=$!
    else
        printf t >&9
        bench new "$new" --turns "9,8,$SAMPLES" & two=$!
        bench base "$base" --turns "8,9,$SAMPLES" & one=$!
    fi
    wait "$one"; status=$?
    wait "$two"; keep new "$2" $?
    keep base "$2" "$status"
}
one_by_one() {
    local side
    for side in "$1" "$3"; do
        if [ "$side" = base ]; then bench base "$base"; else bench new "$new"; fi
        keep "$side" "$2" $?
    done
}

judge() {
    "$COMPARE" --allow "dirty,compiler${ALLOW:+,$ALLOW}" ${turns:+--turns} ${THRESHOLD:+--threshold "$THRESHOLD"} \
        --alpha "$(awk -v looks="$LOOKS" 'BEGIN { print 0.05 / looks }')" --json="$OUT/verdict.json" --markdown="$OUT/verdict.md" \
        --junit="$OUT/verdict.xml" --tracking="$OUT/tracking.json" "$OUT/base" "$OUT/new" >"$OUT/verdict.txt.new"
    local status=$?
    mv "$OUT/verdict.txt.new" "$OUT/verdict.txt"
    [ $status -le 3 ] || give_up "fourbit-compare ended with status $status"
    return $status
}

echo "ab: $ROUNDS rounds, up to $LOOKS times; load $(cut -d' ' -f1-3 /proc/loadavg) on $(nproc) cores" >&2
start=$SECONDS verdict=3
for ((look = 1, round = 1; look <= LOOKS && verdict == 3; look++)); do
    for (( ; round <= look * ROUNDS; round++)); do
        number=$(printf '%04d' "$round")
        choose_core "$round"
        if ((round % 2)); then first=base second=new; else first=new second=base; fi
        if [ -n "$turns" ]; then both_in_turn $first "$number"; else one_by_one $first "$number" $second; fi
        left=$(((SECONDS - start) * (look * ROUNDS - round) / round))
        [ ! -t 2 ] && ((round % 10)) || printf 'ab: round %d of %d, %d s to the next look\n' "$round" "$((look * ROUNDS))" "$left" >&2
    done
    judge
    verdict=$?
done
rm -rf "$OUT"/round "$OUT"/round.*.log "$OUT"/ring-*
[ -n "${KEEP:-}" ] || rm -rf "$OUT"/build-base "$OUT"/build-new
cat "$OUT/verdict.txt"
exit $verdict
