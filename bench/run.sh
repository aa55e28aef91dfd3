#!/usr/bin/env bash
# What `make bench` does once everything is built: peers, timings, error table, plots. Called by the Makefile, which
# sets BENCH (folder of the programs), PROFILE, BACKENDS, MODELS, FILTER, OUT and NO_PEERS.
set -u
BENCH=${BENCH:-build/bin} OUT=${OUT:-build/results/bench} PROFILE=${PROFILE:-quick}
case "${1:-}" in -h | --help) sed -n '2,3s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

peers=build/peers
if [ -n "${NO_PEERS:-}" ]; then
    peers=none
    echo "peers: NO_PEERS is set: only OpenBLAS is compared with"
else
    scripts/peers.sh || echo "peers: going on without bitsandbytes"
fi

arguments=(--profile "$PROFILE" --out "$OUT" --peers "$peers")
[ -n "${BACKENDS:-}" ] && arguments+=(--backends "$BACKENDS")
[ -n "${MODELS:-}" ] && arguments+=(--models "$MODELS")
[ -n "${FILTER:-}" ] && arguments+=(--filter "$FILTER")
"$BENCH/fourbit-bench" "${arguments[@]}"
verdict=$?
# 0 and 1 left a whole report; after anything else there is nothing new to draw.
[ "$verdict" -le 1 ] || exit "$verdict"

echo
if "$BENCH/fourbit" error --csv "$OUT/error.csv" > "$OUT/error.txt"; then
    echo "quantization error: $OUT/error.txt"
else
    echo "bench: the error table failed (fourbit error, exit $?)" >&2
    verdict=1
fi
if ! command -v gnuplot > /dev/null 2>&1; then
    echo "plots: skipped: gnuplot is missing (apt install gnuplot-nox)"
elif ! FOURBIT_ROWS=$(readlink -f "$BENCH/fourbit-rows") plots/plot.sh all "$OUT" "$OUT/plots"; then
    echo "bench: the plots failed" >&2
    verdict=1
fi

echo
echo "results:   $OUT/bench.json (Google Benchmark's format), $OUT/bench-tracking.json, $OUT/error.csv"
echo "pictures:  $OUT/plots/"
echo "meaning:   bench/README.md"
exit "$verdict"
