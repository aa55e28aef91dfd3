#!/usr/bin/env bash
# Registers, shared memory, stack and spills of every CUDA kernel on every architecture, as ptxas reported them when the
# objects were made (OBJECT.ptxas beside each).
#
#   scripts/cuda-resources.sh table LOG...          print the table (kernels/cuda/resources.txt)
#   scripts/cuda-resources.sh check TABLE LOG...    compare; exit 1 and say why if a kernel spills or has grown
#
# Another CUDA release's ptxas may count a few registers more or less: then only stacks and spills are compared.
# NVCC names the compiler (default: on PATH).
set -euo pipefail

nvcc=${NVCC:-nvcc}
release() { "$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p'; }

# One line a kernel and architecture: file|kernel|arch|registers|shared|stack|spilled
usage_of() {
    for log in "$@"; do
        if [ ! -f "$log" ]; then
            echo "$log: missing; remove $(basename "$log" .ptxas) and build again" >&2
            exit 1
        fi
        file=$(basename "$log" .cu.o.ptxas)
        c++filt < "$log" | awk -v file="$file" -v quote="'" '
            /Compiling entry function/ {
                split($0, part, quote); name = part[2]; arch = part[4]
                sub(/^void /, "", name); gsub(/\(anonymous namespace\)::|<unnamed>::/, "", name)
                gsub(/\((bool|int)\)/, "", name); sub(/\(.*/, "", name); gsub(/ /, "", name); next
            }
            /bytes stack frame/ { stack = $1; spilled = $5 + $9; next }
            /ptxas info *: Used/ && name != "" {
                registers = shared = 0
                for (i = 2; i <= NF; i++) { if ($i ~ /^registers/) registers = $(i - 1); if ($i ~ /^smem/) shared = $(i - 2) }
                print file "|" name "|" arch "|" registers "|" shared "|" stack "|" spilled
                name = ""
            }'
    done | LC_ALL=C sort -u
}

print_table() {
    echo "# Registers a thread by architecture; static shared memory, stack and spills in bytes (the largest of all architectures)."
    echo "# Made by \`make cuda-resources\` with CUDA $(release); \`make check-cuda-resources\` compares."
    usage_of "$@" | awk -F'|' '
        BEGIN { count = split("sm_80 sm_86 sm_89 sm_90 sm_90a sm_100 sm_100a sm_120", all, " ") }
        {
            key = $1 "  " $2
            if (!(key in seen)) { seen[key] = 1; order[++n] = key; if (length($2) > widest) widest = length($2); file[key] = $1; name[key] = $2
                if (length($1) > files) files = length($1) }
            registers[key, $3] = $4; present[$3] = 1
            if ($5 + 0 > shared[key]) shared[key] = $5 + 0
            if ($6 + 0 > stack[key]) stack[key] = $6 + 0
            if ($7 + 0 > spills[key]) spills[key] = $7 + 0
        }
        END {
            printf "%-" files "s  %-" widest "s", "file", "kernel"
            for (a = 1; a <= count; a++) if (present[all[a]]) printf "  %7s", all[a]
            printf "  %6s  %5s  %6s\n", "shared", "stack", "spills"
            for (i = 1; i <= n; i++) {
                key = order[i]
                printf "%-" files "s  %-" widest "s", file[key], name[key]
                for (a = 1; a <= count; a++)
                    if (present[all[a]]) printf "  %7s", ((key, all[a]) in registers) ? registers[key, all[a]] : "-"
                printf "  %6d  %5d  %6d\n", shared[key], stack[key], spills[key]
            }
        }'
}

# Columns are found by their heading, so that a build of fewer architectures (CUDA_ARCHS=90a) is compared where it can be.
check_table() {
    table=$1
    shift
    same=1
    grep -q "with CUDA $(release);" "$table" || same=0
    [ "$same" = 1 ] || echo "CUDA $(release) is not the table's release: only stacks and spills are compared"
    print_table "$@" | awk -v same="$same" -v table="$table" '
        function columns(   i) { delete at; for (i = 1; i <= NF; i++) at[$i] = i }
        /^#/ || NF == 0 { next }
        $1 == "file" { columns(); part++; for (c in at) head[part, at[c]] = c; width = NF; next }
        part == 1 { for (i = 3; i <= NF; i++) old[$1 " " $2, head[1, i]] = $i; known[$1 " " $2] = 1; next }
        {
            key = $1 " " $2; kernels++
            if (!(key in known)) {
                print "  " key ": not in " table
                bad++
                if ($NF > 0) print "  " key ": spills " $NF " bytes"
                next
            }
            for (i = 3; i <= NF; i++) {
                what = head[2, i]; was = old[key, what]
                if (what != "stack" && what != "spills" && !same) continue
                if (was == "-" || was == "" || $i == "-" || $i + 0 <= was + 0) continue
                print "  " key ": " what (what ~ /^sm_/ ? " registers" : " bytes:") " " was " -> " $i
                bad++
            }
        }
        END {
            if (!kernels) { print "  no kernels found"; bad++ }
            if (bad) { print "CUDA resources have grown (" bad "). If that is meant: make cuda-resources, and commit the table."; exit 1 }
            print "CUDA resources: " kernels " kernels within " table
        }' "$table" -
}

case ${1:-} in
table) shift; print_table "$@" ;;
check) shift; check_table "$@" ;;
*) sed -n '2,9p' "$0"; exit 2 ;;
esac
