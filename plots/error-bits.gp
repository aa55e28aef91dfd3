# What accuracy costs in memory: error against bits per weight, a curve a format, a point a block size.
# data: format block_size dq bits_per_weight mse ...
# variables: tensor, highest_mse, formats, plain and nested (formats with rows of either kind of absmax)
W = 1000; H = 560
load style
title = "Bits per weight against error: ".tensor
caption = 'A point a block size; down and left is better. Filled, solid: absmax in fp32. Hollow, dashed: double-quantized absmax (8 bits).'
caption2 = 'Distances along x are those of log2(bits − 4), what is paid above the 4 bits of a code. Points straight above or level with each other share a block size.'
eval headline
set lmargin at screen left(70); set rmargin at screen right(24)
set tmargin at screen top(104); set bmargin at screen bottom(66)
legend_top = 82
names = formats; label_of(s) = format_label(s); colour_of(s) = format_colour(s); mark_of(s) = format_mark(s)
eval legend
set logscale x 2
set xrange [0.0014:1.7]
set xtics ("4.002" 0.00195, "4.004" 0.00391, "4.008" 0.00781, "4.016" 0.0156, "4.03" 0.03125, "4.06" 0.0625, "4.125" 0.125, "4.25" 0.25, "4.5" 0.5, "5" 1)
set xlabel "bits per weight, absmax included"
k = exponent_of(highest_mse)
set ylabel "mean squared error".power_label(k) offset 0.5
mse(x) = x / 10.0 ** k
set yrange [0:*]
set autoscale yfixmax
set offsets 0, 0, graph 0.04, 0
# NF4, FP4 and INT4 need the same bits at a block size, and double quantization leaves the error as it is: a number at each
# point would be told twice and more.
number(f, nested) = has(formats, 'nf4') && (f eq 'fp4' || f eq 'int4' || (nested && f ne 'nf4')) ? '' : sprintf('%d', column('block_size'))
label_dx(f, nested) = nested && f eq 'nf4' ? -0.6 : 0.9
label_dy(f, nested) = nested && f eq 'nf4' ? -0.75 : 0.7
above(x) = x > 4 ? x - 4 : NaN
mine(f, nested) = strcol('format') eq f && column('dq') == nested ? above(column('bits_per_weight')) : NaN
plot for [f in plain] data using (mine(f, 0)):(mse(column('mse'))) with lines lc rgb format_colour(f) lw 1.2 notitle, \
     for [f in nested] data using (mine(f, 1)):(mse(column('mse'))) with lines lc rgb format_colour(f) lw 1.2 dt 2 notitle, \
     for [f in nested] data using (mine(f, 1)):(mse(column('mse'))) with points lc rgb "white" pt format_mark(f) ps 1 notitle, \
     for [f in nested] data using (mine(f, 1)):(mse(column('mse'))) with points lc rgb format_colour(f) pt hollow(format_mark(f)) ps 1 notitle, \
     for [f in plain] data using (mine(f, 0)):(mse(column('mse'))) with points lc rgb format_colour(f) pt format_mark(f) ps 1 notitle, \
     for [f in formats] for [nested = 0:1] data using (mine(f, nested)):(mse(column('mse'))):(number(f, nested)) with labels font TINY tc rgb format_colour(f) offset label_dx(f, nested), label_dy(f, nested) notitle
