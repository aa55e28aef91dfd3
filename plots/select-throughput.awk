# Quantize and dequantize of one backend and its peers, at the largest shape with the most block sizes of each operation.
# Low and high of a rate come from the slow and the fast end of the times.
function panel_of(op, dq) { return op (dq == 1 ? "+dq" : "") }
field("op") ~ /^(de)?quantize$/ && is_number(field("GB_s")) && is_number(field("bytes")) {
    b = field("backend")
    if (b != backend && b !~ /^peer:/) next
    p = panel_of(field("op"), field("dq")); shape = field("shape"); elements = field("n") * field("k")
    low = field("bytes") / field("p90_us") / 1e3; high = field("bytes") / field("p10_us") / 1e3
    if (!is_number(field("p90_us")) || !is_number(field("p10_us"))) low = high = field("GB_s")
    row[++n] = p OFS b OFS field("format") OFS field("block_size") OFS shape OFS field("GB_s") OFS low OFS high OFS field("samples") OFS field("bytes")
    row_panel[n] = p; row_shape[n] = shape; row_backend[n] = b; row_format[n] = field("format"); row_rate[n] = high
    if (b == backend && !((p, shape, field("block_size")) in seen)) {
        seen[p, shape, field("block_size")] = 1
        blocks = ++sizes[p, shape]
        if (blocks > best[p] || (blocks == best[p] && elements > largest[p])) { best[p] = blocks; largest[p] = elements; chosen[p] = shape }
    }
}
END {
    if (failed) exit 3
    # An operation at one block size only has nothing to show beside others that have a line.
    for (p in best) if (best[p] > most) most = best[p]
    print "panel", "backend", "format", "block_size", "shape", "GB_s", "GB_s_p10", "GB_s_p90", "samples", "bytes" > data
    for (i = 1; i <= n; i++) {
        p = row_panel[i]
        if (!(p in chosen) || row_shape[i] != chosen[p] || (best[p] < 2 && most > 1)) continue
        print row[i] > data
        panels = with_word(panels, p)
        if (row_backend[i] ~ /^peer:/) peers = with_word(peers, row_backend[i])
        formats = with_word(formats, row_format[i])
        if (row_rate[i] > top) top = row_rate[i]
    }
    if (panels == "") cannot("no quantize or dequantize rows of backend " backend)
    panels = ordered(panels, "dequantize dequantize+dq quantize quantize+dq")
    count = split(panels, name, " ")
    for (i = 1; i <= count; i++) shapes = shapes (i > 1 ? " " : "") chosen[name[i]]
    assign("backend", backend); assign("panels", panels); assign("shapes", shapes); assign("peers", peers)
    assign("formats", ordered(formats, "nf4 fp4 int4 int4-affine"))
    assign_number("copy_bw", is_number(copy_bw) ? copy_bw : "NaN")
    assign_number("highest", is_number(copy_bw) && copy_bw > top ? copy_bw : top)
}
