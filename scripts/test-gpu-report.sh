#!/usr/bin/env bash
# Tests of gpu-report.sh without a GPU: its programs are stubs here. Exit status: 0 all passed.
# shellcheck disable=SC2016  # the stubs expand, not this script
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failures=0 checks=0
expect() { # text, condition...
    local text=$1
    shift
    checks=$((checks + 1))
    "$@" > /dev/null 2>&1 || { failures=$((failures + 1)); echo "FAILED: $text"; }
}
has() { grep -q -- "$1" "$2"; }
lacks() { ! grep -q -- "$1" "$2"; }
is() { [ "$1" = "$2" ]; }

# Each stub leaves a line in $work/calls and ends as $work/<its name>.status says.
stub() { # name, body
    printf '#!/bin/bash\necho "%s $*" >> %s/calls\n%s\nexit $(cat %s/%s.status 2>/dev/null || echo 0)\n' "$1" "$work" "$2" "$work" "$1" > "$work/bin/$1"
    chmod +x "$work/bin/$1"
}
fresh() { # yes: with a GPU
    rm -rf "${work:?}"/bin "$work/out" "$work/calls" "$work"/*.status
    mkdir -p "$work/bin"
    stub fourbit-gpu 'if [ "$1" = --facts ]; then
  [ -e '"$work"'/no-gpu ] && { echo "no GPU: planted"; exit 77; }
  printf "gpu     Planted GPU\ngpu_uuid   GPU-1234\nnvml   not there\n"; exit 0; fi
for ((i = 1; i < $#; i++)); do j=$((i + 1)); [ "${!i}" = --filter ] && filter=${!j}; done
[ -e '"$work"'/hang ] && { trap "echo interrupted; exit 130" TERM; sleep 30 & wait; }
while [ $# -gt 0 ]; do [ "$1" = --out ] && echo "{}" > "$2/bench.json"; shift; done
echo "dequantize cuda       nf4         b64      4096x4096    12.5 $filter"; echo "1 rows timed, 0 failed"'
    stub test_fourbit_gpu 'echo "               tests     70     70     70      0        0"; echo "             asserts 123456 123456 123456      0      n/a"'
    stub fourbit-goals 'echo "M = 1  x_cublas >= 2.9  missed"; echo; echo "1 goals: 0 met, 1 missed, 0 not measured"'
    stub fourbit-tune 'echo "    /* measured: sm90, planted */"'
    stub fourbit-spike 'echo "the same bits"'
    stub test_train_gpu 'echo "               tests      6      6      6      0        0"; echo "             asserts    109    109    109      0      n/a"'
    stub capture-golden 'echo "# Planted GPU" > "$1/sm_90.txt"'
    rm -f "$work/no-gpu" "$work/hang"
    [ "$1" = yes ] || : > "$work/no-gpu"
}
report() { PATH=$work/tools:$PATH CUDA_HOME=$work/cuda "$here/gpu-report.sh" --bin "$work/bin" --out "$work/out" "$@" > "$work/log" 2>&1; }
# The models of bench/layers.c
models=$(sed -n 's/^    {"\([a-z0-9.-]*\)", .*/\1/p' "$here/../bench/layers.c" | sort -u | tr '\n' ' ')
calls() { grep -c "$1" "$work/calls"; }
mkdir -p "$work/tools"

# no GPU: every stage says so, nothing is run, 0; with --require-gpu 3
fresh no
report
expect "no GPU ends with 0" is $? 0
expect "all stages say so" is "$(grep -c '^[0-9]* .*not run: no GPU' "$work/out/summary.txt")" 18
expect "only the facts were asked for" is "$(calls .)" 1
report --require-gpu
expect "--require-gpu ends with 3" is $? 3
# the same folder on a machine that has one
rm "$work/no-gpu"
report
expect "with a GPU the stages run" is $? 0
expect "and the tests ran" has "test_fourbit_gpu --backend cuda" "$work/calls"
expect "no stage says no GPU any more" lacks "no GPU" "$work/out/summary.txt"

# a GPU, all well
fresh yes
report
expect "all well ends with 0" is $? 0
expect "facts in the summary" has "GPU-1234" "$work/out/summary.txt"
expect "counts of the tests in the summary" has "2 tests .*passed: tests 70 70" "$work/out/summary.txt"
expect "those of the training loop too" has "10 train .*passed: tests 6 6" "$work/out/summary.txt"
expect "rows of the benchmark in the summary" has "dequantize cuda" "$work/out/summary.txt"
expect "golden vectors counted" has "4 golden .*passed: 1 file" "$work/out/summary.txt"
expect "no compute-sanitizer is said" has "5 sanitizer .*compute-sanitizer is missing" "$work/out/summary.txt"
expect "each benchmark has its cases" is "$(calls 'fourbit-gpu --profile quick')" 10
expect "the general list without models" is "$(calls 'models none')" 4
expect "a stage for each model" is "$(sed -n 's/.*--models \([a-z]*[^ ]*\).*/\1/p' "$work/calls" | grep -v none | sort | tr '\n' ' ')" "$models"
expect "the tuner is asked for a table and replaces none" has "^fourbit-tune --dry-run --table .*dispatch_table.h" "$work/calls"
expect "which is kept" has "measured: sm90, planted" "$work/out/tune/table.txt"
expect "the goals are told" has "x_cublas >= 2.9  missed" "$work/log"
expect "and counted in the summary" has "goals.txt has all): 1 goals: 0 met, 1 missed" "$work/out/summary.txt"
expect "of all benchmarks together" is "$(sed -n '/^fourbit-goals/p' "$work/calls" | tail -n 1 | tr ' ' '\n' | grep -c bench.json)" 10
expect "a page" test "$(wc -l < "$work/out/summary.txt")" -le 66
before=$(calls .)
report
expect "nothing is done twice" is "$(calls .)" $((before + 2)) # the facts, the goals
report --stage tests
expect "--stage runs it again" is "$(calls .)" $((before + 5))
report --stage 4
expect "--stage takes a number" is "$(calls capture-golden)" 2

# goals that are missed are no failure; results that cannot be read are told
echo 1 > "$work/fourbit-goals.status"
report
expect "a missed goal is no failure of the report" is $? 0
echo 2 > "$work/fourbit-goals.status"
report
expect "results that cannot be read are told" has "goals: not compared" "$work/log"
expect "and leave no table" test ! -e "$work/out/goals.txt"
rm "$work/fourbit-goals.status" "$work/bin/fourbit-goals"
report
expect "no program for it is told" has "no fourbit-goals" "$work/log"

# compute-sanitizer, on some of the tests
printf '#!/bin/bash\necho "sanitizer $*" >> %s/calls\necho "========= ERROR SUMMARY: 0 errors"\n' "$work" > "$work/tools/compute-sanitizer"
chmod +x "$work/tools/compute-sanitizer"
report --stage sanitizer
expect "four tools" is "$(sed -n 's/^sanitizer --tool \([a-z]*\) .*/\1/p' "$work/calls" | sort -u | wc -l)" 4
expect "sanitizer passed" has "5 sanitizer .*passed" "$work/out/summary.txt"
printf '#!/bin/bash\necho "========= ERROR SUMMARY: 2 errors"\nexit 9\n' > "$work/tools/compute-sanitizer"
report --stage sanitizer
expect "its errors fail the report" is $? 1
expect "and are told" has "5 sanitizer .*failed: exit status 9" "$work/out/summary.txt"
rm "$work/tools/compute-sanitizer"

# a failing test, a failing benchmark
fresh yes
echo 1 > "$work/test_fourbit_gpu.status"
report
expect "a failing test fails the report" is $? 1
expect "and is told" has "2 tests .*failed: exit status 1" "$work/out/summary.txt"
expect "the stages after it ran" has "8 bench-products .*passed" "$work/out/summary.txt"
echo 77 > "$work/test_fourbit_gpu.status"
report --stage large
expect "tests that do not apply are not failures" has "3 large .*not run" "$work/out/summary.txt"

# a pager that changes a bit
fresh yes
echo 1 > "$work/fourbit-spike.status"
report --stage pager
expect "a failing spike test fails the report" is $? 1
expect "all four were run" is "$(calls 'fourbit-spike --kind')" 4
expect "and it is told" has "9 pager .*failed: exit status 1" "$work/out/summary.txt"

# a stage that takes too long is cut off, and the others go on
fresh yes
: > "$work/hang"
STAGE_SECONDS=1 report --stage bench-4bit
expect "cut off is a failure" is $? 1
expect "and is told" has "6 bench-4bit .*cut off after 1 s" "$work/out/summary.txt"

# interrupted: the same command goes on with that stage
fresh yes
report --stage facts
report --stage tests
: > "$work/hang"
CUDA_HOME=$work/cuda setsid "$here/gpu-report.sh" --bin "$work/bin" --out "$work/out" > "$work/log" 2>&1 &
pid=$!
for _ in $(seq 100); do [ -e "$work/out/state/6-bench-4bit.running" ] && break; sleep 0.1; done
expect "it got to the benchmark" test -e "$work/out/state/6-bench-4bit.running"
kill -KILL -- "-$pid" 2> /dev/null || kill -KILL "$pid"
wait "$pid" 2> /dev/null
rm "$work/hang"
expect "no verdict of an interrupted stage" test ! -e "$work/out/state/6-bench-4bit"
before=$(calls 'test_fourbit_gpu')
report
expect "it goes on" is $? 0
expect "it says so" has "stage 6 (bench-4bit) was interrupted" "$work/log"
expect "the tests are not run again" is "$(calls 'test_fourbit_gpu')" "$before"
expect "all stages are done" is "$(grep -c 'passed\|not run' "$work/out/summary.txt")" 18

# bad arguments
fresh yes
for bad in "--stage 19" "--stage nothing" "--profile slow" "--nonsense" "--out"; do
    # shellcheck disable=SC2086
    report $bad
    expect "$bad: usage" is $? 2
done
"$here/gpu-report.sh" --bin "$work/nowhere" > "$work/log" 2>&1
expect "no programs: usage" is $? 2
stub fourbit-gpu 'echo "version GLIBC_9.9 not found"; exit 1'
report
expect "programs that do not run here: 1" is $? 1
expect "in their words" has "GLIBC_9.9" "$work/log"

echo "gpu-report: $checks checks, $failures failed"
[ "$failures" -eq 0 ]
