# Fine-tuning on quantized bases: training loss, and its distance from the same run on a bf16 base.
# data: format step loss difference
# variables: formats, runs (over which the means are), highest (difference)
W = 1000; H = 470
load style
title = 'Fine-tuning adapters on quantized bases'
caption = sprintf('Training loss, means of ten steps and of %d runs (bases and seeds). Right: less the loss of the bf16 base at the same step, with the same seed and batches.', runs)
caption2 = 'INT3 is the control: the test of parity must see it.'
eval headline
set multiplot
legend_top = 82
names = formats; label_of(s) = tuned_label(s); colour_of(s) = tuned_colour(s); mark_of(s) = tuned_mark(s)
eval legend
set xlabel "step"
set tmargin at screen top(104); set bmargin at screen bottom(66)
of(f) = strcol('format') eq f ? column('step') : NaN
do for [panel = 1:2] {
    metric = panel == 1 ? 'loss' : 'difference'
    if (panel == 2) { unset label }
    set lmargin at screen panel == 1 ? left(70) : left(W / 2 + 62)
    set rmargin at screen panel == 1 ? left(W / 2 - 10) : right(18)
    set ylabel (panel == 1 ? "loss (nats)" : "loss less bf16's (nats)") offset 0.5
    plot for [f in formats] data using (of(f)):(column(metric)) with lines lc rgb tuned_colour(f) lw 1.3 dt tuned_dash(f) notitle
}
unset multiplot
