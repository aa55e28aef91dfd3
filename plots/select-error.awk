# Rows of error.tsv of one tensor (-v tensor=NAME): both error pictures.
field("tensor") == tensor {
    f = field("format"); dq = field("double_quant"); b = field("block_size")
    row[++n] = f OFS b OFS dq OFS field("bits_per_weight") OFS field("mse") OFS field("mae") OFS field("mse_expected") OFS field("mae_expected")
    formats = with_word(formats, f)
    if (field("mse") + 0 > highest_mse) highest_mse = field("mse") + 0
    if (field("mae") + 0 > highest_mae) highest_mae = field("mae") + 0
    if (dq == 0 && is_number(field("mse_expected")) && is_number(field("mae_expected"))) expected = with_word(expected, f)
    if (dq == 0) { plain = with_word(plain, f); blocks = with_word(blocks, b); mse[f, b] = field("mse") }
    else { nested = with_word(nested, f); nested_mse[f, b] = field("mse") }
}
END {
    if (failed) exit 3
    if (!n) cannot("no rows of tensor " tensor)
    if (!(highest_mse > 0 && highest_mae > 0)) cannot("no error above zero in tensor " tensor)
    if (need == "blocks" && split(blocks, unused, " ") < 2) cannot("fewer than two block sizes without double quantization")
    print "format", "block_size", "dq", "bits_per_weight", "mse", "mae", "mse_expected", "mae_expected" > data
    for (i = 1; i <= n; i++) print row[i] > data
    order = "nf4 fp4 int4 int4-affine"
    plain = ordered(plain, order)
    count = split(plain, name, " ")
    for (i = 1; i <= count; i++) if (!index(" " expected " ", " " name[i] " ")) joined = with_word(joined, name[i])
    for (key in nested_mse) if (is_number(nested_mse[key]) && key in mse && is_number(mse[key]) && mse[key] > 0) {
        change = 100 * (nested_mse[key] / mse[key] - 1)
        if (compared++ == 0 || change > worst) worst = change
    }
    assign("tensor", tensor == "TOTAL" ? "all tensors of the file" : tensor == "student-t" ? "Student-t data" : toupper(substr(tensor, 1, 1)) substr(tensor, 2) " data")
    assign("expected_for", tensor == "TOTAL" ? "weights normally distributed with each tensor's variance" : "normally distributed weights")
    assign("formats", need == "blocks" ? plain : ordered(formats, order))
    assign("plain", plain); assign("nested", ordered(nested, order))
    assign("formats_expected", ordered(expected, order)); assign("formats_joined", joined)
    assign("dq_note", compared ? sprintf("Double quantization of absmax raises the mean squared error by at most %.2g %%%s.", worst > 0 ? worst : 0, worst < 1 ? ", less than a point's height" : "") : "")
    assign_number("highest_mse", highest_mse); assign_number("highest_mae", highest_mae)
}
