#!/usr/bin/env bash
# Tests of fourbit-goals on planted results. Their figures are made up: a device that copies 1000 GB/s and multiplies
# 100 TFLOP/s, and rows that meet each goal; then one of them at a time does not.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
goals=${GOALS:-$here/../../build/bin/fourbit-goals}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
checks=0; failures=0
check() { # what, command...
    local what=$1
    shift
    checks=$((checks + 1))
    "$@" || { failures=$((failures + 1)); printf 'FAILED: %s\n' "$what"; }
}

# ---- a run in which all is well: name, us, bytes, operations, label, more counters --------------------------------------
row() { printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$@"; }
peers='"x_cublas": 3.3, "x_bitsandbytes": 2.1, "x_dequantize+cublas": 6'
good() {
    local m shape
    for shape in N28672_K8192 N8192_K8192 N4096_K4096; do
        for m in 1 2 4 8 16 32 64 128 256; do row "gemm/cuda/nf4/b64/M${m}_$shape" 4 3.9e6 3.9e8 cuda "$peers, \"pct_gemm_peak\": 91"; done
        for m in 512 1024 2048 4096; do row "gemm/cuda/nf4/b64/M${m}_$shape" 400 1e6 3.9e10 cuda "$peers, \"pct_gemm_peak\": 91"; done
        row "gemm/cuda/nf4/b64+dq/M1_$shape" 4 3e6 1e8 cuda "$peers"
    done
    for m in 1 2 4 8 16 512 1024 2048 4096; do row "gemm_dx/cuda/nf4/b64/M${m}_N8192_K8192" 4 3.9e6 3.9e8 cuda "$peers"; done
    for m in 512 2048; do
        row "lora/cuda/nf4/b64/M${m}_N8192_K8192_R16" 400 1e6 3.9e10 cuda '"x_base": 0.97, "x_gemm+cublas": 1.3'
        row "lora/cuda/nf4/b64/M${m}_N8192_K8192_R64" 400 1e6 3.9e10 cuda '"x_base": 0.97, "x_gemm+cublas": 1.3'
    done
    row "lora/cuda/nf4/b64/M2048_N8192_K8192_R256" 400 1e6 3.9e10 cuda '"x_base": 0.5' # beyond r = 64: nobody asks
    for m in dequantize quantize; do
        for shape in b64/8192x8192 b64+dq/8192x8192 b64/28672x8192; do row "$m/cuda/nf4/$shape" 100 9e7 0 cuda "$peers, \"pct_copy_bw\": 95"; done
    done
}
json() { # table on stdin: a result file
    awk -F '\t' 'BEGIN { print "{\"context\": {\"complete\": true, \"copy_bw_GB_s\": \"1000\", \"read_bw_GB_s\": \"1000\", \"gemm_peak_TFLOP_s\": \"100\"}, \"benchmarks\": [" }
        { printf "%s{\"name\": \"%s\", \"label\": \"cold, bf16: %s\", \"p50_us\": %s, \"bytes\": %s, \"GB_s\": %.9g%s%s}\n", (NR > 1 ? "," : ""),
                 $1, $5, $2, $3, $3 / $2 * 1e-3, ($4 > 0 ? ", \"flops\": " $4 : ""), ($6 == "" ? "" : ", " $6) }
        END { print "]}" }'
}
run() { # expected status, arguments...
    local expected=$1 status=0
    shift
    "$goals" "$@" > "$work/log" 2>&1 || status=$?
    [ "$status" -eq "$expected" ] || { printf 'fourbit-goals %s: exit %d, expected %d\n' "$*" "$status" "$expected"; cat "$work/log"; false; }
}
says() { grep -Eq -- "$1" "$work/log" || { printf 'no "%s" in:\n' "$1"; cat "$work/log"; false; }; }

good > "$work/good.tsv"
json < "$work/good.tsv" > "$work/good.json"
check "all met" run 0 "$work/good.json"
check "and counted" says ' goals: [0-9]+ met, 0 missed, 0 not measured'
check "the worst of four rows is named" says '>= 0.92 \(then 0.97\) +3.3  met +gemm/cuda/nf4/b64/M[0-9]+_N8192_K8192 \(the worst\)'
check "no goals of a backend that has no rows" bash -c "! grep -q '^cpu' '$work/log'"

# ---- each measure misses when its figure is planted low (or high) ---------------------------------------------------------
# miss WHAT ROW SED-EXPRESSION ON THAT ROW EXPECTED-LINE
miss() {
    sed "\\|^$2	|$3" "$work/good.tsv" | json > "$work/bad.json"
    check "$1 misses" run 1 "$work/bad.json"
    check "$1 says so" says "$4"
}
G=gemm/cuda/nf4/b64
miss "a ratio over a peer" "$G/M1_N28672_K8192" 's/"x_cublas": 3.3/"x_cublas": 2.89/' 'x_cublas +>= 2.9 \(then 3.2\) +2.89  missed'
miss "a share of the memory's roof" "$G/M1_N8192_K8192" 's/	3.9e6	3.9e8/	2.8e6	1e8/' 'pct_roof +>= 72 +70  missed'
miss "a share of the arithmetic roof" "$G/M64_N8192_K8192" 's/	4	3.9e6	3.9e8/	4	1e6	2.7e8/' 'pct_roof +>= 70 +67.5  missed'
miss "a time" "$G/M1_N4096_K4096" 's/	4	/	4.6	/' 'p50_us +<= 4.5 +4.6  missed'
miss "a time over M = 1's" "$G/M8_N8192_K8192" 's/	4	/	4.7	/' 'time/M1 +<= 1.15 +1.18  missed +gemm/cuda/nf4/b64/M8_N8192'
miss "double quantization that costs" "gemm/cuda/nf4/b64+dq/M1_N28672_K8192" 's/	4	/	4.2	/' 'time/plain +<= 1.01 +1.05  missed +gemm/cuda/nf4/b64\+dq/M1_N28672'
miss "an adapter that costs" "lora/cuda/nf4/b64/M2048_N8192_K8192_R64" 's/"x_base": 0.97/"x_base": 0.94/' 'adapter_pct +<= 4 +6.38  missed'
miss "one M of a range" "$G/M2048_N8192_K8192" 's/"pct_gemm_peak": 91/"pct_gemm_peak": 80/' 'pct_gemm_peak +>= 90 +80  missed +gemm/cuda/nf4/b64/M2048'
miss "backward" "gemm_dx/cuda/nf4/b64/M1024_N8192_K8192" 's/"x_cublas": 3.3/"x_cublas": 0.8/' 'x_cublas +>= 0.88 +0.8  missed'

# ---- what was not measured is not met ---------------------------------------------------------------------------------------
grep -v "$G/M8_N8192" "$work/good.tsv" | json > "$work/part.json"
check "a range with a hole" run 3 "$work/part.json"
check "is not measured, and says how much is there" says 'time/M1 +<= 1.15 +1  not measured +3 of 4 rows'
sed 's/"x_bitsandbytes": 2.1, //' "$work/good.tsv" | json > "$work/part.json"
check "no peer" run 3 "$work/part.json"
check "is named" says 'x_bitsandbytes +>= 1.8 +-  not measured +gemm/cuda/nf4/b64/M1_N28672_K8192: no x_bitsandbytes'
grep -v "$G/M1_N4096" "$work/good.tsv" | json > "$work/part.json"
check "no row" run 3 "$work/part.json"
check "is named too" says 'not measured +no row gemm/cuda/nf4/b64/M1_N4096_K4096'
sed 's/	cuda	/	cuda; on the host: not a GPU'"'"'s time	/' "$work/good.tsv" | json > "$work/host.json"
check "the harness on the host is no GPU" run 3 "$work/host.json"
check "and says so" says ' 0 met, 0 missed'
sed 's|\(.*M1_N8192_K8192", .*\)}|\1, "above_roofline": "a bug"}|' "$work/good.json" > "$work/above.json"
check "a row above the roof counts for nothing" run 3 "$work/above.json"
check "and is named" says 'it is above the roofline'
sed 's|\(.*M1_N8192_K8192", .*\)}|\1, "error_occurred": true, "error_message": "FAILED: product"}|' "$work/good.json" > "$work/failed.json"
check "nor does a row that failed" run 3 "$work/failed.json"
check "and why it failed is told" says 'FAILED: product'

# ---- several files, the CPU's table, text for programs -----------------------------------------------------------------------
grep "$G/M8_N8192" "$work/good.tsv" | json > "$work/rest.json"
grep -v "$G/M8_N8192" "$work/good.tsv" | json > "$work/part.json"
check "two files make one run" run 0 "$work/part.json" "$work/rest.json"
check "the last file's row counts" run 1 "$work/good.json" "$work/bad.json"
check "whichever that is" run 0 "$work/bad.json" "$work/good.json"
cpu() { # label, share of the peak
    row "gemm/cpu/nf4/b64/M1_N8192_K8192" 100 9e7 1 "$1" '"x_bitsandbytes-cpu": 6'
    row "gemm/cpu/nf4/b64/M256_N8192_K8192" 500 1e6 1 "$1" "\"x_bitsandbytes-cpu\": 30, \"pct_gemm_peak\": $2, \"x_dequantize+openblas\": 2"
    row "gemm_dx/cpu/nf4/b64/M256_N8192_K8192" 700 1e6 1 "$1" '"x_openblas": 2'
    row "gemm/cpu/int4/b64/M1_N4096_K4096" 120 9e6 1 "$1" '"x_openblas": 2'
    row "gemm/cpu/nf4/b64/M1_N4096_K4096" 100 9e6 1 "$1" '"x_openblas": 2'
}
cpu amx 39 | json > "$work/cpu.json"
check "the CPU's goals" run 1 "$work/cpu.json"
check "of AMX" says '^M = 256 +pct_gemm_peak +>= 40 +39  missed'
check "read bandwidth" says 'pct_read_bw +>= 85 +90  met'
cpu amx 39 | json | sed 's|"x_bitsandbytes-cpu": 6}|"x_bitsandbytes-cpu": 6, "copy_bw_GB_s": 1100, "read_bw_GB_s": 1200}|' > "$work/own.json"
check "a row that has the bandwidth of its own rounds" run 1 "$work/own.json"
check "is held to that, not to the run's" says 'pct_read_bw +>= 85 +75  missed'
check "the CPU's goals again" run 1 "$work/cpu.json"
check "backward beside forward" says 'time/gemm +<= 1.3 +1.4  missed'
check "a format per byte" says 'rate/nf4_b64 +>= 0.85 +0.833  missed'
cpu avx512 39 | json > "$work/cpu.json"
check "without AMX" run 1 "$work/cpu.json"
check "its goals are not measured" says '^M = 256 +pct_gemm_peak +>= 40 +-  not measured +not run with amx'
check "--tsv" run 1 --tsv "$work/cpu.json"
check "has as many fields in each line" bash -c "awk -F '\t' 'NF != 7 { bad = 1 } END { exit bad || NR < 10 }' '$work/log'"
check "--tsv holds the figures" says '^cpu: M = 1	pct_read_bw	>=	85	90	met	gemm/cpu/nf4/b64/M1_N8192_K8192$'

# ---- bad input -----------------------------------------------------------------------------------------------------------------
printf '{"benchmarks": 1}' > "$work/odd.json"; printf '{"context"' > "$work/cut.json"
row "gemm/other/nf4/b64/M1_N1_K1" 1 1 1 x '"x": 1' | json > "$work/other.json"
check "no file" run 2
check "a missing file" run 2 "$work/nowhere.json"
check "no run" run 2 "$work/odd.json"
check "half a file" run 2 "$work/cut.json"
check "a backend without goals" run 2 "$work/other.json"
check "an unknown option" run 2 --nonsense "$work/good.json"
check "--help" run 0 --help

printf 'goals: %d checks, %d failed\n' "$checks" "$failures"
[ "$failures" -eq 0 ]
