#!/usr/bin/env bash
# Run each test program named on the command line; a line of verdict each and a summary. Exit 1 if any failed or none ran.
set -u
passed=0 failed=0 names=()
for program in "$@"; do
    start=$EPOCHREALTIME
    "$program"
    status=$?
    if [ "$status" -eq 0 ]; then verdict=ok passed=$((passed + 1)); else verdict="FAILED (exit $status)" failed=$((failed + 1)) names+=("$program"); fi
    awk -v a="$start" -v b="$EPOCHREALTIME" -v n="$program" -v v="$verdict" 'BEGIN { printf "==> %-40s %s, %.1f s\n\n", n, v, b - a }'
done
[ "$failed" -gt 0 ] && printf 'FAILED: %s\n' "${names[*]}"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
