# Roofline of the product: TFLOP/s against arithmetic intensity, a mark a series, a number an M.
# data: series m flops_per_byte TFLOP_s ... roof_TFLOP_s
# variables: seen (read bandwidth in the rounds of the points, or empty), product, operands, rows_of, backend, series, config, shape, bandwidth (GB/s), bandwidth_kind, peak (TFLOP/s), lowest and widest
# (flops_per_byte), slowest and fastest (TFLOP/s), above (points over the roof)
W = 1000; H = 600
load style
scale = peak < 2 ? 1000.0 : 1.0
unit = peak < 2 ? 'GFLOP/s' : 'TFLOP/s'
title = 'Roofline of '.product.', '.config.', '.shape
caption = 'Ceilings measured in the same run. Bytes counted: the weights as each series stores them (decoded ones written and read again), '.operands.'. Numbers: M, the rows of '.rows_of.'.'
caption2 = above eq '' ? (seen eq '' ? '' : 'The read bandwidth in the rounds of the points that memory bounds, GB/s: '.seen.' (roof_TFLOP_s in the data).') : 'ABOVE THE ROOF by more than 10 % (ringed): the bytes counted or the ceiling are wrong, or the weights stay in cache: '.above
eval headline
legend_top = 82
names = series; label_of(s) = backend_label(s); colour_of(s) = backend_colour(s); mark_of(s) = backend_mark(s)
eval legend

set lmargin at screen left(70); set rmargin at screen right(24)
set tmargin at screen top(104); set bmargin at screen bottom(66)
set logscale xy
set samples 1000
low_x = lowest / 1.6; high_x = (widest > 2000.0 * peak / bandwidth ? widest : 2000.0 * peak / bandwidth) * 1.3
set xrange [low_x:high_x]
low_y = slowest * scale / 2; high_y = (fastest > peak ? fastest : peak) * scale * 1.9
set yrange [low_y:high_y]
set xlabel "arithmetic intensity (flop / byte)"
set ylabel unit offset 0.5
set format "%g"
roof(x) = scale * (x * bandwidth / 1e3 < peak ? x * bandwidth / 1e3 : peak)
corner = peak * 1e3 / bandwidth
set label 5 sprintf('%.3g %s, measured peak', peak * scale, unit) at first high_x, first peak * scale right offset -0.5, 0.7 font SMALL
# The words lie along the slope: its angle on paper follows from the size of the panel in pixels.
set angles degrees
slope = atan((H - 170.0) / log(high_y / low_y) / ((W - 94.0) / log(high_x / low_x)))
set label 6 sprintf('%.3g GB/s, measured %s', bandwidth, bandwidth_kind) at first sqrt(low_x * corner), first roof(sqrt(low_x * corner)) \
    center rotate by slope offset -0.8, 0.8 font SMALL
mine(s) = strcol('series') eq s ? column('flops_per_byte') : NaN
label_dx(s) = has(s, 'dequant') ? -2 : 0.6
label_dy(s) = has(s, 'dequant') || has(s, '+dq') ? 0.7 : -0.6
over(s) = column('TFLOP_s') > 1.1 * column('roof_TFLOP_s') ? mine(s) : NaN
plot roof(x) with lines lc rgb BLACK lw 1.5, \
     for [s in series] data using (mine(s)):(column('TFLOP_s') * scale) with lines lc rgb backend_colour(s) lw 0.8 dt 3, \
     for [s in series] data using (mine(s)):(column('TFLOP_s') * scale) with points lc rgb backend_colour(s) pt backend_mark(s) ps 0.9, \
     for [s in series] data using (over(s)):(column('TFLOP_s') * scale) with points lc rgb "red" pt 6 lw 1.5 ps 2, \
     for [s in series] data using (mine(s)):(column('TFLOP_s') * scale):(sprintf('%d', column('m'))) with labels font TINY tc rgb backend_colour(s) left offset label_dx(s), label_dy(s)
