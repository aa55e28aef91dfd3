# Rows of one product (-v op=gemm, gemm_dx, lora, lora_backward) and one shape [N, K] for the roofline (-v need=roofline) and the time picture (-v need=time): the shape with
# the most values of M, then the largest; at NF4, block 64 if it was run there, else the configuration with most rows. A
# configuration of a LoRA layer has its rank.
# A series is a backend, and apart from it its double-quantized rows.
field("op") == op && is_number(field("p50_us")) {
    b = field("backend")
    # A peer's rows beside our double-quantized ones repeat its plain ones, or nearly: the speed-up pictures have them.
    if (b ~ /^peer:/ && field("dq") == 1) next
    m = field("m"); shape = field("n") "x" field("k")
    config = field("format") " b" field("block_size") (field("rank") > 0 ? " r" field("rank") : "")
    low = is_number(field("p10_us")) ? field("p10_us") : field("p50_us")
    high = is_number(field("p90_us")) ? field("p90_us") : field("p50_us")
    n++
    row_shape[n] = shape; row_config[n] = config; row_m[n] = m; row_backend[n] = b
    row_series[n] = b (field("dq") == 1 ? "+dq" : "")
    row_flops[n] = field("flops"); row_bytes[n] = field("bytes")
    row_bandwidth[n] = is_number(field("read_bw_GB_s")) ? field("read_bw_GB_s") : "" # in its own rounds
    row_p50[n] = field("p50_us"); row_low[n] = low; row_high[n] = high; row_samples[n] = field("samples")
    elements[shape] = field("n") * field("k")
    if (b == backend && !((shape, config, m) in seen)) { seen[shape, config, m] = 1; count[shape, config]++ }
}
BEGIN {
    product_of["gemm"] = "the 4-bit product: Y = X·Wᵀ"; operands_of["gemm"] = "X, Y"
    product_of["gemm_dx"] = "the 4-bit product backward: dX = dY·W"; operands_of["gemm_dx"] = "dY, dX"
    product_of["lora"] = "a layer with an adapter: Y = X·Wᵀ + U·Bᵀ, U = X·Aᵀ"; operands_of["lora"] = "X, A, B, U, Y"
    product_of["lora_backward"] = "the gradients of a layer with an adapter: dX, dA, dB"; operands_of["lora_backward"] = "dY, X, U, A, B, dX, dA, dB"
}
# NF4 at block 64 is what checkpoints use.
function weight(shape, config) { return count[shape, config] * 2 + (config ~ /^nf4 b64( |$)/ ? 1000 : 0) + elements[shape] / 1e12 }
END {
    if (failed) exit 3
    shape = config = ""
    for (i = 1; i <= n; i++)
        if (row_backend[i] == backend && (shape == "" || weight(row_shape[i], row_config[i]) > weight(shape, config))) { shape = row_shape[i]; config = row_config[i] }
    if (shape == "") cannot("no " op " rows of backend " backend)
    if (op != "gemm" && count[shape, config] < 2) cannot("the " op " rows of a shape have one M alone")
    bandwidth = is_number(read_bw) ? read_bw : copy_bw
    if (need == "roofline" && !(is_number(bandwidth) && is_number(peak))) cannot("the run has no measured ceilings (read_bw_GB_s or copy_bw_GB_s, gemm_peak_TFLOP_s)")
    print "series", "m", "flops_per_byte", "TFLOP_s", "us_p50", "us_p10", "us_p90", "samples", "bytes", "flops", "roof_TFLOP_s" > data
    for (i = 1; i <= n; i++) {
        if (row_shape[i] != shape || row_config[i] != config) continue
        has_rate = is_number(row_flops[i]) && is_number(row_bytes[i]) && row_bytes[i] > 0
        if (need == "roofline" && !has_rate) continue
        intensity = has_rate ? row_flops[i] / row_bytes[i] : "NaN"; rate = has_rate ? row_flops[i] / row_p50[i] / 1e6 : "NaN"
        roof = "NaN"
        if (need == "roofline") {
            own = row_bandwidth[i] == "" ? bandwidth : row_bandwidth[i]
            roof = intensity * own / 1e3; if (roof > peak) roof = peak
            if (row_bandwidth[i] != "") {
                if (least == "" || own + 0 < least) least = own + 0
                if (own + 0 > greatest) greatest = own + 0
            }
            if (rate > 1.1 * roof) above_roof = above_roof (above_roof == "" ? "" : ", ") row_series[i] " at M = " row_m[i]
            if (lowest == "" || intensity < lowest) lowest = intensity
            if (intensity > widest) widest = intensity
            if (slowest == "" || rate < slowest) slowest = rate
            if (rate > fastest) fastest = rate
        }
        print row_series[i], row_m[i], intensity, rate, row_p50[i], row_low[i], row_high[i], row_samples[i], row_bytes[i], row_flops[i], roof > data
        drawn++; series = with_word(series, row_series[i]); sizes = with_word(sizes, row_m[i])
        if (row_low[i] < quickest || quickest == "") quickest = row_low[i] + 0
        if (row_high[i] > longest) longest = row_high[i] + 0
        if (row_backend[i] == "reference" || row_m[i] != 1) continue # the bars; the reference's would dwarf them
        one = with_word(one, row_series[i])
        if (row_high[i] > slow) slow = row_high[i] + 0
        if (fewest == "" || row_samples[i] < fewest) fewest = row_samples[i] + 0
        if (row_samples[i] > most) most = row_samples[i] + 0
    }
    if (!drawn) cannot("the " op " rows at " config " have no flops or bytes")
    split(shape, nk, "x")
    # The baseline first, ours last: drawn on top.
    first = "peer:openblas peer:cublas peer:dequantize+openblas peer:dequantize+cublas peer:gemm+cublas"
    ours = backend (index(" " series " ", " " backend "+dq ") ? " " backend "+dq" : "")
    assign("series", ordered(without(series, ours), first) " " ours)
    assign("bars", slow > 0 ? ordered(without(one, ours), first) " " without(one, without(one, ours)) : "")
    words = split(config, part, " ")
    assign("config", toupper(part[1]) ", block " substr(part[2], 2) (words == 3 ? ", rank " substr(part[3], 2) : ""))
    assign("product", product_of[op]); assign("operands", operands_of[op]); assign("rows_of", op == "gemm" || op == "lora" ? "X" : "dY")
    assign("shape", "N = " nk[1] ", K = " nk[2]); assign("sizes", sizes); assign("backend", backend)
    assign("samples", fewest == most ? most : fewest " to " most)
    assign_number("quickest", quickest); assign_number("longest", longest)
    assign_number("slowest_bar", slow > 0 ? slow : "NaN")
    if (need == "roofline") {
        if (above_roof != "") print "plots: above the measured roof by more than 10 %, check the bytes: " above_roof > "/dev/stderr"
        assign("above", above_roof); assign("bandwidth_kind", is_number(read_bw) ? "read" : "copy")
        assign("seen", least == "" ? "" : sprintf("%.3g to %.3g", least, greatest))
        assign_number("bandwidth", bandwidth); assign_number("peak", peak)
        assign_number("lowest", lowest); assign_number("widest", widest); assign_number("slowest", slowest); assign_number("fastest", fastest)
    }
}
