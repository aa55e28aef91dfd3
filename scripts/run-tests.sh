#!/usr/bin/env bash
# Run each test program named on the command line; a line of verdict each, then what failed once more, and a summary.
# Exit 1 if any failed or none ran.
set -u
log=$(mktemp) && trap 'rm -f "$log"' EXIT || exit 1
passed=0 failed=0 report=
for program in "$@"; do
    start=$EPOCHREALTIME
    "$program" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    if [ "$status" -eq 0 ]; then
        verdict=ok passed=$((passed + 1))
    else
        verdict="FAILED (exit $status)" failed=$((failed + 1))
        # CUnit's "n. file:line - assertion" lines and the tests they stand under; else the last words
        lines=$(grep -E '\.\.\.FAILED|^ +[0-9]+\. |^ *not ok|FAIL' "$log" | head -40)
        report+="FAILED: $program (exit $status)"$'\n'"${lines:-$(tail -15 "$log")}"$'\n'
    fi
    awk -v a="$start" -v b="$EPOCHREALTIME" -v n="$program" -v v="$verdict" 'BEGIN { printf "==> %-40s %s, %.1f s\n\n", n, v, b - a }'
done
printf '%s%d passed, %d failed\n' "$report" "$passed" "$failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
