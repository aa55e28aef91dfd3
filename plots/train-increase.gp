# What quantizing a base costs its held-out loss, by format and block size: a mark a base, lines through the means.
# data: format block_size seed increase mean
# variables: formats, bases, lowest and highest (increase), narrowest and widest (block size); plot's xtics: the block sizes
W = 1000; H = 470
load style
title = 'Loss after quantizing, before fine-tuning'
caption = sprintf('Increase of the held-out loss over the same base in fp32, on the same windows; a mark a base (%d), lines join the means.', bases)
caption2 = 'Increases of 0 or less have no place on this axis.'
eval headline
legend_top = 82
names = formats; label_of(s) = tuned_label(s); colour_of(s) = tuned_colour(s); mark_of(s) = tuned_mark(s)
eval legend
set lmargin at screen left(70); set rmargin at screen right(24)
set tmargin at screen top(104); set bmargin at screen bottom(66)
set logscale xy
set xrange [narrowest / 1.5:widest * 1.5]
set yrange [lowest / 1.3:highest * 1.3]
set xlabel "block size (weights that share one absmax)"
set ylabel "increase (nats)" offset 0.5
set format y "%g"
set ytics ()
do for [e = -6:2] { do for [d in "1 2 5"] { set ytics add (d * 10.0**e) } }
of(f) = strcol('format') eq f ? column('block_size') : NaN
plot for [f in formats] data using (of(f)):(column('mean')) smooth unique with lines lc rgb tuned_colour(f) lw 1.2 dt tuned_dash(f) notitle, \
     for [f in formats] data using (of(f)):(column('increase')) with points lc rgb tuned_colour(f) pt tuned_mark(f) ps 0.9 notitle
