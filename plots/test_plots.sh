#!/usr/bin/env bash
# Draws every picture from testdata/ (made-up figures, see README.md), then feeds plot.sh what it must refuse.
# The $ in single quotes are awk's.
# shellcheck disable=SC2016
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data=$here/testdata
export FOURBIT_ROWS=${FOURBIT_ROWS:-$here/../build/bin/fourbit-rows}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
checks=0; failures=0

# check WHAT COMMAND...: the command must succeed.
check() {
    local what=$1
    shift
    checks=$((checks + 1))
    "$@" || { failures=$((failures + 1)); printf 'FAILED: %s\n' "$what"; }
}
# run EXPECTED_STATUS ARGUMENTS...: plot.sh, its words in $work/log.
run() {
    local expected=$1 status=0
    shift
    "$here/plot.sh" "$@" > "$work/log" 2>&1 || status=$?
    [ "$status" -eq "$expected" ] || { printf 'plot.sh %s: exit %d, expected %d\n' "$*" "$status" "$expected"; cat "$work/log"; false; }
}
says() { grep -Fq -- "$1" "$work/log" || { printf 'no "%s" in:\n' "$1"; cat "$work/log"; false; }; }
empty_folder() { [ ! -e "$1" ] || [ -z "$(ls -A "$1")" ]; }
larger() { [ "$(wc -c < "$1" 2>/dev/null || echo 0)" -gt "$2" ]; }
closed_svg() { [ "$(grep -v "^$" "$1" | tail -n 1)" = "</svg>" ]; }
png() { [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ]; }
table() { [ "$(awk -F '\t' 'NR == 1 { n = NF } NF != n { exit 1 } END { print (NR > 3) }' "$1")" = 1 ]; }

# ---- everything there is ----------------------------------------------------------------
check "draw all" run 0 all "$data" "$work/a"
pictures="throughput speedup-openblas speedup-bitsandbytes-cpu lora-cost"
for op in gemm gemm_dx lora lora_backward; do pictures+=" $op-roofline $op-time"; done
for tensor in gaussian student-t uniform; do pictures+=" error-block-size-$tensor error-bits-$tensor"; done
for p in $pictures; do
    check "$p.svg is drawn" larger "$work/a/$p.svg" 8000
    check "$p.svg is whole" closed_svg "$work/a/$p.svg"
    check "$p.png is drawn" larger "$work/a/$p.png" 20000
    check "$p.png is a PNG" png "$work/a/$p.png"
    check "$p.tsv is a table" table "$work/a/$p.tsv"
    check "$p has its footer" grep -Eq 'commit 0000000|error.csv' "$work/a/$p.svg"
done
check "other variants than bf16 and cold are named" says "not drawn: 3 rows of other variants"
check "nothing is left behind" [ -z "$(find "$work/a" -name '.drawing*')" ]
check "draw all again" run 0 all "$data" "$work/b"
for p in $pictures; do check "$p.svg is the same, run to run" cmp "$work/a/$p.svg" "$work/b/$p.svg"; done

# ---- the numbers in the tables ------------------------------------------------------------
row='^dequantize\scpu\snf4\s64\s4096x4096\s'
check "a rate's band holds its median" awk -F '\t' 'NR > 1 && !($7 <= $6 && $6 <= $8) { bad = 1 } END { exit bad || NR < 10 }' "$work/a/throughput.tsv"
check "NF4 at block 64 is one point" [ "$(grep -Pc "$row" "$work/a/throughput.tsv")" = 1 ]
check "the roof is min(bandwidth x intensity, peak)" awk -F '\t' '
    NR > 1 { roof = $3 * 0.023; if (roof > 0.118) roof = 0.118; d = $11 / roof - 1; if (!(d < 1e-4 && d > -1e-4)) bad = 1 }
    END { exit bad || NR < 10 }' "$work/a/gemm-roofline.tsv"
check "one rank of a layer, all M" [ "$(tail -n +2 "$work/a/lora-time.tsv" | cut -f 2 | tr '\n' ' ')" = "1 16 64 256 " ]
check "which is named" grep -q "rank [0-9]*, N = 11008, K = 4096" "$work/a/lora-time.svg"
check "backward beside its peers" [ "$(cut -f 1 "$work/a/gemm_dx-time.tsv" | tail -n +2 | sort -u | tr '\n' ' ')" = "cpu peer:dequantize+openblas peer:openblas " ]
check "the cost of an adapter, cell by cell" grep -Pq '^lora_backward r64 M=256\tnf4 b64  11008×4096\t[0-9]+\t1\t0.[0-9]+$' "$work/a/lora-cost.tsv"
check "an adapter's picture is no speed-up over a peer" [ ! -e "$work/a/speedup-base.svg" ]

# ---- names and numbers that no run should have, and some that it may -----------------------
printf '{"context": {"z": 2.5, "nested": [1], "no": null}, "benchmarks": [%s]}' '
    {"name": "gemm/cpu/nf4/b64+dq/M1_N2_K3/fp32/iterations:5/manual_time/hot", "GB_s": 2, "x_some-peer": 3}, {"name": "gemm/cpu/nf4/b64+d/M1_N2_K3"},
    {"name": "gemm//nf4/b64/M1_N2_K3"}, {"name": "gemm/cpu/nf4/b99999999999999999999/M1_N2_K3"}, {"name": ""}, {"name": "gemm/cpu"},
    {"name": "lora/cpu/nf4/b64/M1_N2_K3_R8"}, {"name": "lora/cpu/nf4/b64/M1_N2_K3_R"}, {"name": "lora/cpu/nf4/b64/M1_N2_K3_R0"},
    {"name": "quantize/cpu/nf4/b64/0x7"}, {"name": "quantize/cpu/nf4/b64/7x7", "run_type": "aggregate"}' > "$work/odd.json"
"$FOURBIT_ROWS" "$work/odd.json" > "$work/odd.tsv" 2> "$work/log"
check "names of another form are counted" says "2 rows; left out: 0 failed, 1 aggregates, 8 of other names"
check "a row's name is taken apart" grep -Pq '^gemm\tcpu\tnf4\t64\t1\tM1_N2_K3\t1\t2\t3\tfp32/hot\t0\tNaN\tNaN\t2\tNaN.*\t3$' "$work/odd.tsv"
check "a layer's rank is its own column" grep -Pq '^lora\tcpu\tnf4\t64\t0\tM1_N2_K3_R8\t1\t2\t3\t-\t8\tNaN' "$work/odd.tsv"
check "context: scalars only" [ "$("$FOURBIT_ROWS" --context "$work/odd.json")" = "z	2.5" ]
sed -n '1p; 2s/^gaussian/"a ""name"", with\n commas"/p; s/^gaussian,[0-9]*,[0-9]*/TOTAL,,/p' "$data/error.csv" > "$work/total.csv"
check "a checkpoint's table: TOTAL without a shape, names in quotes" run 0 error "$work/total.csv" "$work/g"
check "is drawn" larger "$work/g/error-bits-TOTAL.svg" 8000

awk -F, -v OFS=, 'NR > 1 && $4 == "int4-affine" { $9 = $10 = $11 = "inf"; $12 = "-inf" } { print }' "$data/error.csv" > "$work/overflow.csv"
check "weights that overflow once decoded: no points, and no error" run 0 error "$work/overflow.csv" "$work/h"
check "is drawn" larger "$work/h/error-block-size-gaussian.svg" 8000

# ---- a fine-tuning experiment, of which one run was stopped ------------------------------
mkdir -p "$work/train"
awk 'BEGIN { print "seed,tune,format,step,loss"; n = split("bf16 nf4 nf4+dq fp4 int4 int3", f, " ")
             for (s = 0; s < 3; s++) for (i = 1; i <= n; i++) for (k = 1; k <= (s == 2 && i == 6 ? 7 : 30); k++)
                 printf "%d,0,%s,%d,%.6f\n", s, f[i], k, 1.5 + 1 / k + (i == 6 ? 0.05 : 0.001 * (i - 1)) }' > "$work/train/curves.csv"
awk 'BEGIN { print "seed,format,block_size,loss,increase"; split("nf4 nf4+dq fp4 int4 int3", f, " "); split(".03 .03 .06 .05 .35", c, " ")
             for (s = 0; s < 3; s++) for (b = 64; b <= 1024; b *= 16) for (i = 1; i <= 5; i++)
                 printf "%d,%s,%d,2,%.6f\n", s, f[i], b, c[i] * (1 + s / 10) * (b > 64 ? 1.5 : 1) }' > "$work/train/quantized.csv"
check "draw an experiment" run 0 train "$work/train" "$work/t"
for p in train-increase train-curves; do
    check "$p.svg is drawn" larger "$work/t/$p.svg" 8000
    check "$p.svg is whole" closed_svg "$work/t/$p.svg"
    check "$p.png is a PNG" png "$work/t/$p.png"
    check "$p.tsv is a table" table "$work/t/$p.tsv"
done
check "the run that was stopped is left out" grep -q "of 2 runs" "$work/t/train-curves.svg"
check "INT3 lies 0.05 above bf16" awk -F '\t' '$1 == "int3" && !($4 > 0.04999 && $4 < 0.05001) { bad = 1 } END { exit bad }' "$work/t/train-curves.tsv"
check "the mean of an increase" grep -Pq '^nf4\t64\t0\t0.030000\t0.033$' "$work/t/train-increase.tsv"
head -c 53 "$work/train/curves.csv" > "$work/cut.csv"; mv "$work/cut.csv" "$work/train/curves.csv"
check "a table cut short" run 2 train "$work/train" "$work/none"
check "names the file and the line" says "curves.csv: line"

# ---- part of a run: what can be drawn is, the rest is named ------------------------------
filtered() { sed -E "/\"name\": \"$1/d; s/^(.*\"x_.*), \"x_[^}]*\}/\1}/" "$data/bench.json" | sed -z 's/},\n\]/}\n]/' > "$work/part.json"; }
filtered "(gemm|gemm_dx|lora|lora_backward)\/"
check "a run without gemm is no error" run 0 bench "$work/part.json" "$work/c"
check "the missing roofline is named" says "no gemm-roofline: no gemm rows of backend cpu"
check "throughput is drawn all the same" larger "$work/c/throughput.svg" 8000
check "and no roofline" [ ! -e "$work/c/gemm-roofline.svg" ]
sed -E '/"name": "gemm_dx.*M(4|16|64|256)_/d' "$data/bench.json" > "$work/one.json"
check "backward at one M" run 0 bench "$work/one.json" "$work/i"
check "is no line" says "no gemm_dx-time: the gemm_dx rows of a shape have one M alone"
# 32 values of M are more columns than fit
awk '{ print } /"name": "gemm\/cpu\/nf4\/b64\/M16_N4096/ { for (m = 100; m < 132; m++) { r = $0; gsub(/M16_/, "M" m "_", r); print r } }' "$data/bench.json" > "$work/wide.json"
check "a run of many M" run 0 bench "$work/wide.json" "$work/j"
check "has a picture an operation" larger "$work/j/speedup-openblas-gemm.svg" 8000
check "each its own" larger "$work/j/speedup-openblas-gemm_dx.svg" 3000
check "and none of all" [ ! -e "$work/j/speedup-openblas.svg" ]
BACKEND=abacus check "an unknown backend" run 0 bench "$data/bench.json" "$work/none"
check "draws nothing" empty_folder "$work/none"
printf '{"context": {}, "benchmarks": []}' > "$work/empty.json"
check "a run of no rows is no error" run 0 bench "$work/empty.json" "$work/none"
check "and says why there are no pictures" says "no throughput: no quantize or dequantize rows"
mkdir -p "$work/folder"; head -n 200 "$data/error.csv" > "$work/folder/error.csv"
check "a folder with one file of two" run 0 all "$work/folder" "$work/d"
check "names the other" says "bench.json"

# ---- a point over the roof is a bug of the harness, and flagged as one ----------------------
sed -E 's|("name": "gemm/cpu/nf4/b64/M256_N11008.*"p50_us": )[0-9.]+|\11.5|' "$data/bench.json" > "$work/over.json"
check "a row over the roof is drawn" run 0 bench "$work/over.json" "$work/e"
check "flagged on stderr" says "above the measured roof by more than 10 %, check the bytes: cpu at M = 256"
check "and in the picture" grep -q "ABOVE THE ROOF" "$work/e/gemm-roofline.svg"

# ---- a row that has the bandwidth of its own rounds is held to that ---------------------------
sed -E 's|("name": "gemm/cpu/nf4/b64/M1_N11008_K4096")|\1, "copy_bw_GB_s": 46, "read_bw_GB_s": 46|' "$data/bench.json" > "$work/own.json"
check "a row with a bandwidth of its own is drawn" run 0 bench "$work/own.json" "$work/own"
check "twice the bandwidth is twice the roof" awk -F '\t' '
    NR > 1 { bandwidth = $1 == "cpu" && $2 == 1 ? 0.046 : 0.023; roof = $3 * bandwidth; if (roof > 0.118) roof = 0.118; d = $11 / roof - 1
             own += bandwidth > 0.04; if (!(d < 1e-4 && d > -1e-4)) bad = 1 }
    END { exit bad || NR < 10 || own != 1 }' "$work/own/gemm-roofline.tsv"
check "and the range is said" grep -q "memory bounds, GB/s: 46 to 46" "$work/own/gemm-roofline.svg"

# ---- refused, with nothing written ----------------------------------------------------------
size=$(wc -c < "$data/bench.json")
for cut in 1 $((size / 3)) $((size - 5)); do
    head -c "$cut" "$data/bench.json" > "$work/cut.json"
    check "JSON cut at byte $cut" run 2 bench "$work/cut.json" "$work/f"
    check "names the file and the line" says "cut.json: line"
done
printf '\0\377\0garbage' > "$work/garbage.json"
check "garbage" run 2 bench "$work/garbage.json" "$work/f"
printf '[1, 2]' > "$work/list.json"
check "JSON that is no run" run 2 bench "$work/list.json" "$work/f"
check "says so" says "not a benchmark run"
sed -E '0,/"p50_us": [0-9.]+/s//"p50_us": "fast"/' "$data/bench.json" > "$work/word.json"
check "a counter that is a word" run 2 bench "$work/word.json" "$work/f"
check "names the counter" says '"p50_us" is not a number'
sed -E '0,/"p50_us": [0-9.]+/s//"p50_us": -5/' "$data/bench.json" > "$work/below.json"
check "a time below 0" run 2 bench "$work/below.json" "$work/f"
check "names it" says '"p50_us" is negative'
check "missing JSON" run 2 bench "$work/nowhere.json" "$work/f"
check "names itself" says "nowhere.json"
check "missing CSV" run 2 error "$work/nowhere.csv" "$work/f"
check "names itself" says "nowhere.csv"
check "a folder with neither" run 2 all "$data/.." "$work/f"
sed '5s/,[0-9.]*,/,abc,/' "$data/error.csv" > "$work/bad.csv"
check "a CSV with a word for a number" run 2 error "$work/bad.csv" "$work/f"
check "names the line" says "bad.csv: line 5"
awk -F, -v OFS=, 'NR == 4 { $9 = "-1" } { print }' "$data/error.csv" > "$work/below.csv"
check "a CSV with an error below 0" run 2 error "$work/below.csv" "$work/f"
check "names the field" says 'below.csv: line 4: field 9 is "-1": below 0'
awk -F, -v OFS=, 'NR == 4 { $7 = "inf" } { print }' "$data/error.csv" > "$work/infinite.csv"
check "a CSV with infinite bits" run 2 error "$work/infinite.csv" "$work/f"
check "names the field" says 'line 4: field 7 is "inf", not a finite number'
head -c 3000 "$data/error.csv" | sed '$s/,[^,]*,[^,]*$//' > "$work/short.csv"
check "a CSV cut in a line" run 2 error "$work/short.csv" "$work/f"
check "names what is wrong" says "fields, not 14"
: > "$work/empty.csv"
check "an empty CSV" run 2 error "$work/empty.csv" "$work/f"
check "no half-written picture anywhere" empty_folder "$work/f"
check "no arguments" run 2
check "help" run 0 --help

printf 'plots: %d checks, %d failed\n' "$checks" "$failures"
[ "$failures" -eq 0 ]
