# Quantization error against block size, a line a format: measured points on the closed-form expectation.
# data: format block_size dq mse mae mse_expected mae_expected
# variables: tensor, expected_for (what the closed form assumes), formats, formats_expected (those with a closed form),
# formats_joined (those without), highest_mse, highest_mae, dq_note
W = 1000; H = 470
load style
title = "Quantization error against block size: ".tensor
caption = (formats_expected eq '' ? '' : 'Points: measured. Solid lines: closed form for '.expected_for.', exact block maximum. ') \
    .(formats_joined eq '' ? '' : (formats_expected eq '' ? 'Points: measured, joined by dotted lines.' : 'Dotted lines join points that have no closed form.'))
caption2 = 'Absmax in fp32. '.dq_note
eval headline

set multiplot
legend_top = 82
names = formats; label_of(s) = format_label(s); colour_of(s) = format_colour(s); mark_of(s) = format_mark(s)
eval legend

set logscale x 2
set xrange [26:5000]
set xtics (32, 64, 128, 256, 512, 1024, 2048, 4096)
set xlabel "block size (weights that share one absmax)"
set yrange [0:*]
set autoscale yfixmax
set offsets 0, 0, graph 0.03, 0
set format y "%g"
set tmargin at screen top(104); set bmargin at screen bottom(66)
of(f) = strcol('format') eq f && column('dq') == 0 ? column('block_size') : NaN

do for [panel = 1:2] {
    metric = panel == 1 ? 'mse' : 'mae'
    if (panel == 2) { unset label }
    set lmargin at screen panel == 1 ? left(70) : left(W / 2 + 62)
    set rmargin at screen panel == 1 ? left(W / 2 - 10) : right(18)
    k = exponent_of(panel == 1 ? highest_mse : highest_mae)
    set ylabel (panel == 1 ? "mean squared error" : "mean absolute error").power_label(k) offset 0.5
    plot for [f in formats_expected] data using (of(f)):(column(metric.'_expected') / 10.0 ** k) with lines lc rgb format_colour(f) lw 1.3, \
         for [f in formats_joined] data using (of(f)):(column(metric) / 10.0 ** k) with lines lc rgb format_colour(f) lw 1.1 dt 3, \
         for [f in formats] data using (of(f)):(column(metric) / 10.0 ** k) with points lc rgb format_colour(f) pt format_mark(f) ps 0.9
}
unset multiplot
