# Time of the product: against M with p10-p90 bands, and as bars at M = 1 (a token at a time).
# data: series m ... us_p50 us_p10 us_p90 samples
# variables: product, rows_of, backend, series, bars (series with M = 1, "" for none), config, shape, sizes, samples, slowest_bar,
# quickest and longest (us)
W = 1000; H = 470
load style
title = 'Time of '.product.', '.config.', '.shape
caption = 'Median; bands and whiskers from p10 to p90, samples of all series interleaved.'
caption2 = ''
eval headline
set multiplot
legend_top = 66
names = series; label_of(s) = backend_label(s); colour_of(s) = backend_colour(s); mark_of(s) = backend_mark(s)
eval legend

mine(s) = strcol('series') eq s ? column('m') : NaN
set lmargin at screen left(70); set rmargin at screen bars eq '' ? right(24) : left(W / 2 - 10)
set tmargin at screen top(90); set bmargin at screen bottom(66)
set logscale x 2
set logscale y 10
set xrange [int(word(sizes, 1)) * 0.8:int(word(sizes, words(sizes))) * 1.25]
set yrange [quickest / 1.4e3:longest * 1.4 / 1e3]
set xtics ()
do for [m in sizes] { set xtics add (m int(m)) }
set xlabel 'M (rows of '.rows_of.')'
set ylabel "ms" offset 0.5
set format y "%g"
set style fill transparent solid 0.2 noborder
plot for [s in series] data using (mine(s)):(column('us_p10') / 1e3):(column('us_p90') / 1e3) with filledcurves lc rgb backend_colour(s), \
     for [s in series] data using (mine(s)):(column('us_p50') / 1e3) with linespoints lc rgb backend_colour(s) lw 1.2 pt backend_mark(s) ps 0.8

if (bars ne '') {
    unset label
    unset logscale
    big = slowest_bar >= 1000
    unit = big ? 1e3 : 1.0
    count = words(bars)
    row(s) = count - (sum [i = 1:count] (word(bars, i) eq s ? i : 0))
    one(s) = strcol('series') eq s && column('m') == 1 ? row(s) : NaN
    set lmargin at screen left(W / 2 + 190); set rmargin at screen right(24)
    set xrange [0:1.25 * slowest_bar / unit]; set yrange [-0.6:count - 0.4]
    set xtics auto; set ytics () scale 0
    do for [i = 1:count] { set ytics add (backend_label(word(bars, i)) count - i) }
    set format x "%g"
    set grid noytics
    set xlabel sprintf('%s at M = 1, n = %s samples', big ? 'ms' : 'µs', samples)
    unset ylabel
    plot for [s in bars] data using (0):(one(s)):(0):(column('us_p50') / unit):(row(s) - 0.32):(row(s) + 0.32) \
            with boxxyerror fs solid 0.85 noborder lc rgb backend_colour(s), \
         for [s in bars] data using (column('us_p50') / unit):(one(s)):(column('us_p10') / unit):(column('us_p90') / unit) \
            with xerrorbars lc rgb BLACK pt 0 lw 1, \
         for [s in bars] data using (column('us_p90') / unit):(one(s)):(sprintf('%.3g', column('us_p50') / unit)) \
            with labels left offset 0.7, 0 font SMALL
}
unset multiplot
