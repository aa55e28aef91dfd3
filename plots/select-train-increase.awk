# Rows of quantized.tsv: what quantizing a base costs its held-out loss, a row a base, format and block size.
field("format") != "bf16" && is_number(field("increase")) {
    f = field("format"); b = field("block_size")
    formats = with_word(formats, f); blocks = with_word(blocks, b); seeds = with_word(seeds, field("seed"))
    row[++n] = f OFS b OFS field("seed") OFS field("increase")
    sum[f, b] += field("increase"); of[f, b]++
    if (field("increase") + 0 > 0 && (!(lowest > 0) || field("increase") + 0 < lowest)) lowest = field("increase") + 0
    if (field("increase") + 0 > highest) highest = field("increase") + 0
    if (!narrowest || b + 0 < narrowest) narrowest = b + 0
    if (b + 0 > widest) widest = b + 0
}
END {
    if (failed) exit 3
    if (!n) cannot("no quantized bases")
    if (!(lowest > 0)) cannot("no increase above zero")
    print "format", "block_size", "seed", "increase", "mean" > data
    for (i = 1; i <= n; i++) { split(row[i], part, OFS); print row[i], sum[part[1], part[2]] / of[part[1], part[2]] > data }
    assign("formats", ordered(formats, "nf4 nf4+dq fp4 int4 int3"))
    count = split(blocks, block, " ")
    for (i = 1; i <= count; i++) tics = tics (i > 1 ? ", " : "") block[i]
    print "set xtics (" tics ")"
    assign_number("bases", split(seeds, unused, " ")); assign_number("lowest", lowest); assign_number("highest", highest)
    assign_number("narrowest", narrowest); assign_number("widest", widest)
}
