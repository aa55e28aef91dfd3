#!/usr/bin/env bash
# plot.sh: draws the pictures of a result file. Reads that file and nothing else.
set -euo pipefail
export LC_ALL=C.UTF-8
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rows_tool=${FOURBIT_ROWS:-$here/../build/bin/fourbit-rows}

usage() {
    cat <<'END'
plots/plot.sh error FILE.csv OUTDIR    pictures of a quantization error table
plots/plot.sh bench FILE.json OUTDIR   pictures of a benchmark run
plots/plot.sh train FOLDER OUTDIR      pictures of a fine-tuning experiment, from FOLDER/quantized.csv and FOLDER/curves.csv
plots/plot.sh all FOLDER OUTDIR        error and bench, from FOLDER/error.csv and FOLDER/bench.json

Each picture is written as SVG and PNG with the rows it shows in a .tsv beside it. What the input has no rows for is
named, with the reason, and is no error. A picture appears whole or not at all.

Environment:
  BACKEND=name        whose benchmark rows to draw; default: the first that has any of cuda, cpu, reference
  FOURBIT_ROWS=path   the fourbit-rows program (default build/bin/fourbit-rows; `make build/bin/fourbit-rows` makes it)
Exit status: 0; 1 when a program fails (gnuplot, a full disk); 2 for bad arguments or input.
END
}

die() { printf 'plots: %s\n' "$2" >&2; exit "$1"; }

drawn=0
# finish PICTURE: the whole of it moves into place; a rename within one folder is atomic.
finish() {
    local part
    for part in tsv svg png; do mv -f "$work/$1.$part" "$out/$1.$part"; done
    printf '  %s\n' "$out/$1.svg"
    drawn=$((drawn + 1))
}

# picture NAME SCRIPT.gp SELECT.awk TABLE [awk -v assignments ...]: select the rows, draw them twice, keep them beside.
picture() {
    local name=$1 script=$2 select=$3 table=$4 vars status=0 terminal
    shift 4
    vars=$(awk -v data="$work/$name.tsv" "$@" -f "$here/lib.awk" -f "$here/$select" "$table") || status=$?
    if [ "$status" -eq 3 ]; then
        printf '  no %s: %s%s\n' "$name" "$vars" "$([ ! -e "$out/$name.svg" ] || echo ' (the one there is from an earlier run)')"
        return 0
    fi
    [ "$status" -eq 0 ] || die 1 "$select failed on $table"
    for terminal in svg png; do
        {
            printf "terminal = '%s'\npicture = '%s'\ndata = '%s'\nstyle = '%s'\n" "$terminal" \
                "${work//\'/\'\'}/$name.$terminal" "${work//\'/\'\'}/$name.tsv" "${here//\'/\'\'}/style.gp"
            printf "footer = '%s'\n%s\n" "${footer//\'/\'\'}" "$vars"
            cat "$here/$script"
        } > "$work/$name.gp"
        gnuplot "$work/$name.gp" > "$work/log" 2>&1 || { cat "$work/log" >&2; die 1 "gnuplot could not draw $name"; }
        [ -s "$work/$name.$terminal" ] || { cat "$work/log" >&2; die 1 "gnuplot drew nothing for $name"; }
    done
    # gnuplot 5.4 writes a bold face as part of the family's name. Verdana has DejaVu's proportions, for a viewer without it.
    sed -i -e 's/font-family="DejaVu Sans:Bold"/font-family="DejaVu Sans" font-weight="bold"/' \
        -e 's/font-family="DejaVu Sans"/font-family="DejaVu Sans, Verdana, sans-serif"/' "$work/$name.svg"
    finish "$name"
}

# error.csv -> $work/error.tsv, checked. A tensor's name may hold commas: fields count from the right.
read_error_csv() {
    awk -v file="$1" '
        BEGIN { FS = ","; OFS = "\t"; fields = 14
                header = "tensor,rows,cols,format,block_size,double_quant,bits_per_weight,bytes,mse,mae,max_abs,sqnr_db,mse_expected,mae_expected" }
        function bad(why) { printf "plots: %s: line %d: %s\n", file, NR, why > "/dev/stderr"; failed = 2; exit 2 }
        # A quoted name may hold line ends: the record goes on until its quotes close.
        function quotes(s) { return gsub(/"/, "&", s) }
        { while (quotes($0) % 2 && (getline more) > 0) $0 = $0 " " more; sub(/\r$/, "") }
        !seen { if ($0 != header) bad("the header is not \"" header "\""); gsub(/,/, OFS); print; seen = 1; next }
        NF < fields { bad("has " NF " fields, not " fields) }
        {
            name = $1
            for (i = 2; i <= NF - fields + 1; i++) name = name "," $i
            if (name ~ /^".*"$/) { name = substr(name, 2, length(name) - 2); gsub(/""/, "\"", name) }
            gsub(/\t/, " ", name)
            line = name
            for (i = NF - fields + 2; i <= NF; i++) {
                column = i - (NF - fields); value = $i
                if (value == "" && (column <= 3 || column >= 11)) value = "NaN" # TOTAL has no shape
                if (tolower(value) ~ /^-?nan$/) value = "NaN"
                if (column != 4 && value != "NaN" && tolower(value) !~ /^-?inf$/ && value !~ /^[-+]?[0-9.]+([eE][-+]?[0-9]+)?$/)
                    bad("field " column " is \"" value "\", not a number")
                if (column >= 2 && column <= 11 && value ~ /^-/) bad("field " column " is \"" value "\": below 0")
                infinite = tolower(value) ~ /inf/ || value + 0 > 1e300 || value + 0 < -1e300
                if (column >= 9 && infinite) value = "NaN" # weights beyond fp32 once decoded: no point to draw
                if (column >= 5 && column <= 8 && (infinite || value == "NaN")) bad("field " column " is \"" value "\", not a finite number")
                line = line OFS value
            }
            print line
        }
        END { if (failed) exit 2
              if (!seen) { NR = 1; bad("empty: no header") } }' "$1" > "$work/error.unsorted" || exit 2
    { head -n 1 "$work/error.unsorted"; tail -n +2 "$work/error.unsorted" | sort -t $'\t' -s -k6,6n -k5,5n; } > "$work/error.tsv"
}

draw_error() {
    local tensor tensors=0
    [ -f "$1" ] || die 2 "$1: no such file; \`make validate\` writes it"
    read_error_csv "$1"
    # A file's tensors differ in size and scale: its TOTAL is drawn, not each of hundreds.
    # The table does not say where it comes from.
    footer="$(basename "$1"), written $(date -r "$1" +%F)"
    for tensor in gaussian student-t uniform TOTAL; do
        cut -f 1 "$work/error.tsv" | tail -n +2 | grep -Fxq -- "$tensor" || continue
        tensors=$((tensors + 1))
        picture "error-block-size-$tensor" error-block-size.gp select-error.awk "$work/error.tsv" -v tensor="$tensor" -v need=blocks
        picture "error-bits-$tensor" error-bits.gp select-error.awk "$work/error.tsv" -v tensor="$tensor" -v need=bits
    done
    [ "$tensors" -gt 0 ] || printf '  no error pictures: %s has neither synthetic tensors (gaussian, student-t, uniform) nor TOTAL rows\n' "$1"
}

# A table of fourbit-train-experiment: numbers and format names, no quotes. A line cut short is refused.
read_train_csv() {
    awk -F, -v OFS='\t' -v file="$1" -v header="$2" '
        function bad(why) { printf "plots: %s: line %d: %s\n", file, NR, why > "/dev/stderr"; failed = 2; exit 2 }
        NR == 1 { if ($0 != header) bad("the header is not \"" header "\""); fields = NF; $1 = $1; print; next }
        NF != fields { bad("has " NF " fields, not " fields) }
        { for (i = 1; i <= NF; i++) if ($i !~ /^[-+]?[0-9.]+([eE][-+]?[0-9]+)?$/ && $i !~ /^(bf16|nf4|nf4\+dq|fp4|int4|int3|-?nan)$/) bad("field " i " is \"" $i "\"")
          $1 = $1; print }
        END { if (failed) exit 2
              if (!NR) bad("empty: no header") }' "$1" > "$work/$(basename "$1" .csv).tsv" || exit 2
}

draw_train() {
    local name
    for name in quantized curves; do
        [ -f "$1/$name.csv" ] || die 2 "$1/$name.csv: no such file; \`make train-experiment\` writes it"
    done
    read_train_csv "$1/quantized.csv" seed,format,block_size,loss,increase
    read_train_csv "$1/curves.csv" seed,tune,format,step,loss
    footer="quantized.csv, curves.csv, written $(date -r "$1/curves.csv" +%F)"
    picture train-increase train-increase.gp select-train-increase.awk "$work/quantized.tsv"
    picture train-curves train-curves.gp select-train-curves.awk "$work/curves.tsv"
}

context() { awk -F '\t' -v key="$1" '$1 == key { print $2; exit }' "$work/context.tsv"; }

# A picture shows one variant: bf16 with cold caches ("-") where there is any, else the first. Says what is left out.
choose_variant() {
    tail -n +2 "$work/rows.unsorted" | cut -f 10 | sort | uniq -c | awk '
        { count[$2] = $1; if (first == "" || $2 == "-") first = $2 }
        END {
            for (v in count) if (v != first) { n += count[v]; names = names (names == "" ? "" : ", ") v }
            if (n) printf "  not drawn: %d rows of other variants (%s)\n", n, names > "/dev/stderr"
            print first == "" ? "-" : first
        }'
}

# columns_against PEER BACKEND: operation, rank and M of the rows compared with it.
columns_against() {
    awk -F '\t' -v peer="x_$1" -v backend="$2" 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        $(at["backend"]) == backend && $(at[peer]) ~ /^[0-9]/ { print $(at["op"]) FS $(at["rank"]) FS $(at["m"]) }' "$work/rows.tsv" | sort -u
}

draw_bench() {
    local backend peer peers ceilings variant op ops name
    [ -f "$1" ] || die 2 "$1: no such file; \`make bench\` writes it"
    [ -x "$rows_tool" ] || die 2 "$rows_tool: not built; run \`make build/bin/fourbit-rows\`"
    "$rows_tool" "$1" > "$work/rows.unsorted" || exit 2
    "$rows_tool" --context "$1" > "$work/context.tsv" || exit 2
    variant=$(choose_variant)
    footer="$(context cpu_name) · commit $(context commit) · $(context date)"
    [ "$variant" = - ] || footer+=" · $variant"
    [ "$(context complete)" != false ] || footer+=" · the run did not finish"
    { head -n 1 "$work/rows.unsorted"
      awk -F '\t' -v variant="$variant" 'NR > 1 && $10 == variant' "$work/rows.unsorted" | sort -t $'\t' -s -k7,7n -k4,4n -k5,5n
    } > "$work/rows.tsv"
    for backend in ${BACKEND:-cuda cpu reference}; do
        ! cut -f 2 "$work/rows.tsv" | grep -Fxq -- "$backend" || break
    done
    ceilings=(-v backend="$backend" -v copy_bw="$(context copy_bw_GB_s)" -v read_bw="$(context read_bw_GB_s)" -v peak="$(context gemm_peak_TFLOP_s)")
    picture throughput throughput.gp select-throughput.awk "$work/rows.tsv" "${ceilings[@]}"
    for op in gemm gemm_dx lora lora_backward; do
        picture "$op-roofline" gemm-roofline.gp select-gemm.awk "$work/rows.tsv" "${ceilings[@]}" -v op="$op" -v need=roofline
        picture "$op-time" gemm-time.gp select-gemm.awk "$work/rows.tsv" "${ceilings[@]}" -v op="$op" -v need=time
    done
    peers=$(head -n 1 "$work/rows.tsv" | tr '\t' '\n' | sed -n 's/^x_//p')
    [ -n "$peers" ] || printf "  no speedup: the run has no peers to compare with (\`make peers\` fetches them)\n"
    for peer in $peers; do
        name=speedup-${peer//[^A-Za-z0-9+._-]/_}
        [ "$peer" != base ] || name=lora-cost
        ops=all
        # As many columns as a page is wide; beyond that, a picture an operation.
        [ "$(columns_against "$peer" "$backend" | wc -l)" -le 24 ] || ops=$(columns_against "$peer" "$backend" | cut -f 1 | sort -u)
        for op in $ops; do
            picture "$name$([ "$op" = all ] || echo "-$op")" speedup.gp select-speedup.awk "$work/rows.tsv" "${ceilings[@]}" -v peer="$peer" -v op="$op"
        done
    done
}

case ${1:-} in
    -h | --help) usage; exit 0 ;;
    error | bench | train | all) [ $# -eq 3 ] || { usage >&2; exit 2; } ;;
    *) usage >&2; exit 2 ;;
esac
command -v gnuplot > /dev/null || die 1 "gnuplot is not installed (Debian: gnuplot-nox)"
[ -e "$2" ] || die 2 "$2: no such file or folder (\`make bench\` and \`make validate\` write results)"
if [ "$1" = all ] && [ ! -e "$2/error.csv" ] && [ ! -e "$2/bench.json" ]; then
    die 2 "$2: neither bench.json (\`make bench\`) nor error.csv (\`make validate\`) is there"
fi
mkdir -p "$3" || die 1 "cannot make the folder $3"
out=$3
work=$(mktemp -d "$out/.drawing.XXXXXX") || die 1 "cannot write to $out"
trap 'rm -rf "$work"' EXIT
printf 'plots of %s:\n' "$2"
case $1 in
    error) draw_error "$2" ;;
    bench) draw_bench "$2" ;;
    train) draw_train "$2" ;;
    all)
        if [ -e "$2/bench.json" ]; then draw_bench "$2/bench.json"; else printf '  no benchmark pictures: no %s\n' "$2/bench.json"; fi
        if [ -e "$2/error.csv" ]; then draw_error "$2/error.csv"; else printf '  no error pictures: no %s\n' "$2/error.csv"; fi ;;
esac
printf '%d pictures\n' "$drawn"
