#!/usr/bin/env bash
# Run each test program named on the command line; one line of verdict each, a summary, exit 1 if any failed.
set -u
passed=0; failed=0; names=()
for program in "$@"; do
    name=$(basename "$program"); start=$(date +%s.%N)
    if "$program"; then verdict="ok"; passed=$((passed + 1)); else verdict="FAILED (exit $?)"; failed=$((failed + 1)); names+=("$name"); fi
    printf '==> %-24s %s, %.1f s\n' "$name" "$verdict" "$(echo "$(date +%s.%N) - $start" | bc 2>/dev/null || echo 0)"
done
[ "$failed" -gt 0 ] && printf 'failed: %s\n' "${names[*]}"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
