# Rows of curves.tsv: loss of each fine-tuning step, mean over bases and seeds, and its difference from bf16's (the same base,
# seed and batches), each a mean of the last ten steps: one batch's loss differs from the next by far more than formats do.
{
    f = field("format"); step = field("step") + 0
    if (!is_number(field("loss"))) next
    formats = with_word(formats, f)
    run = field("seed") "." field("tune")
    runs = with_word(runs, run)
    loss[run, f, step] = field("loss")
    if (step > last) last = step
}
END {
    if (failed) exit 3
    if (last < 10) cannot("fewer than ten fine-tuning steps")
    # Of a run that was stopped, only what every format has.
    n = split(formats, name, " "); count = split(runs, id, " ")
    for (r = 1; r <= count; r++) {
        whole = 1
        for (i = 1; i <= n; i++) if (!((id[r], name[i], last) in loss)) whole = 0
        if (whole) used = with_word(used, id[r])
    }
    count = split(used, id, " ")
    if (!count || !index(" " formats " ", " bf16 ")) cannot("no base and seed of which every format was fine-tuned to the end")
    print "format", "step", "loss", "difference" > data
    for (i = 1; i <= n; i++) for (s = 10; s <= last; s++) {
        sum = apart = 0
        for (r = 1; r <= count; r++) for (k = s - 9; k <= s; k++) {
            sum += loss[id[r], name[i], k]
            apart += loss[id[r], name[i], k] - loss[id[r], "bf16", k]
        }
        print name[i], s, sum / count / 10, apart / count / 10 > data
        if (apart / count / 10 > highest) highest = apart / count / 10
    }
    assign("formats", ordered(formats, "bf16 nf4 nf4+dq fp4 int4 int3"))
    assign_number("runs", count); assign_number("highest", highest + 0)
}
