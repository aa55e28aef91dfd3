# One peer (-v peer=NAME, the column x_NAME), one operation or all (-v op): a cell for each operation (rank, and M) by
# configuration. The value is the peer's median over ours; above 1 we are faster. Of the peer "base", the product inside a
# LoRA layer: what is left of its speed.
BEGIN { place["dequantize"] = 1; place["quantize"] = 2; place["gemm"] = 3; place["gemm_dx"] = 4; place["lora"] = 5; place["lora_backward"] = 6 }
field("backend") == backend && (op == "all" || field("op") == op) && is_number(field("x_" peer)) && field("x_" peer) > 0 {
    name = field("op"); m = field("m"); rank_r = field("rank") + 0
    c = name (rank_r > 0 ? " r" rank_r : "") (m > 0 ? " M=" m : "")
    if (!(c in column_key)) { column_key[c] = 1; columns[++column_count] = c; column_order[c] = (name in place ? place[name] : 9) * 1e12 + rank_r * 1e8 + m }
    r = field("format") " b" field("block_size") (field("dq") == 1 ? "+dq" : "") "  " field("n") "×" field("k")
    if (!(r in row_key)) { row_key[r] = 1; rows[++row_count] = r; row_order[r] = rank(field("format")) * 1e6 + field("block_size") * 100 + field("dq") * 50; row_size[r] = field("n") * field("k") + field("n") / 1e9 }
    value[r, c] = field("x_" peer)
    v = log(value[r, c]) / log(2); if (v < 0) v = -v
    if (v > limit) limit = v
}
function rank(f) { return f == "nf4" ? 1 : f == "fp4" ? 2 : f == "int4" ? 3 : f == "int4-affine" ? 4 : 5 }
function column_before(a, b) { return column_order[a] < column_order[b] }
function row_before(a, b) { return row_size[a] != row_size[b] ? row_size[a] < row_size[b] : row_order[a] < row_order[b] }
END {
    if (failed) exit 3
    if (!row_count) cannot("no rows of backend " backend " were compared with " peer)
    for (i = 2; i <= column_count; i++) for (j = i; j > 1 && column_before(columns[j], columns[j - 1]); j--) { t = columns[j]; columns[j] = columns[j - 1]; columns[j - 1] = t }
    for (i = 2; i <= row_count; i++) for (j = i; j > 1 && row_before(rows[j], rows[j - 1]); j--) { t = rows[j]; rows[j] = rows[j - 1]; rows[j - 1] = t }
    print "column", "row", "x", "y", "speedup" > data
    for (i = 1; i <= row_count; i++) for (j = 1; j <= column_count; j++)
        if ((rows[i], columns[j]) in value) print columns[j], rows[i], j, i, value[rows[i], columns[j]] > data
    assign("peer", peer); assign("backend", backend)
    assign_number("column_count", column_count); assign_number("row_count", row_count)
    # The palette's ends: the largest ratio, at least 2x and at most 16x either way.
    assign_number("limit", limit < 1 ? 1 : limit > 4 ? 4 : limit)
    for (j = 1; j <= column_count; j++) {
        name = columns[j]
        gsub(/["\\]/, "", name) # two lines: \n for gnuplot to read
        if (name ~ / r[0-9]+ M=/) { sub(/ r/, "\\nr", name); sub(/ M=/, ", M = ", name) } else sub(/ M=/, "\\nM = ", name)
        if (name ~ /^lora/) cell = 94
        print "set x2tics add (\"" name "\" " j ")" > (data ".tics")
    }
    assign_number("cell_w", cell ? cell : 72)
    for (i = 1; i <= row_count; i++) print "set ytics add (" quoted(rows[i]) " " i ")" > (data ".tics")
}
