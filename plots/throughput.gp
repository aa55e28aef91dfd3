# Quantize and dequantize throughput against block size, a line a format, a panel an operation.
# data: panel backend format block_size shape GB_s GB_s_p10 GB_s_p90 samples bytes
# variables: backend, panels, shapes (one a panel), peers, formats, copy_bw, highest
W = 1000; H = 470
load style
title = "Throughput against block size: fourbit ".backend.(peers eq '' ? '' : ' and peers')
caption = 'GB/s of bytes read and written (codes, absmax, dense matrix); median, whiskers p10 to p90. Formats are set a little apart along x to be told apart.'
caption2 = (peers eq '' ? '' : 'Filled, solid: fourbit. Hollow, dotted: '.join(peers).'. ').(copy_bw == copy_bw ? 'Dashed line: copy bandwidth measured in the same run.' : 'The run did not measure a copy bandwidth.')
eval headline
set multiplot
legend_top = 82
names = formats; label_of(s) = format_label(s); colour_of(s) = format_colour(s); mark_of(s) = format_mark(s)
eval legend

set logscale x 2
set xrange [24:5500]
set xtics (32, 64, 128, 256, 512, "1k" 1024, "2k" 2048, "4k" 4096)
set xlabel "block size"
set yrange [0:1.12 * highest]
set tmargin at screen top(120); set bmargin at screen bottom(66)
count = words(panels)
backends = backend.' '.peers
dash(b) = b eq backend ? 1 : 3
width = (W - 70.0 - 18.0 + 14.0) / count
do for [panel = 1:count] {
    p = word(panels, panel)
    if (panel == 2) { unset label }
    set label 5 panel_label(p).',  '.times(word(shapes, panel)) at graph 0, 1 offset 0, 0.8 left font SMALL
    set lmargin at screen left(70 + (panel - 1) * width)
    set rmargin at screen left(70 + panel * width - 14)
    if (panel == 1) { set ylabel "GB/s" offset 0.5; set format y "%g" } else { unset ylabel; set format y "" }
    if (copy_bw == copy_bw) {
        set arrow 1 from graph 0, first copy_bw to graph 1, first copy_bw nohead dt 2 lc rgb BLACK lw 1.2
        if (panel == count) { set label 6 sprintf('copy: %.3g GB/s', copy_bw) at graph 1, first copy_bw right offset 0, 0.6 font TINY }
    }
    at(b, f, i) = strcol('panel') eq p && strcol('backend') eq b && strcol('format') eq f ? column('block_size') * 2 ** (0.09 * (i - (words(formats) + 1) / 2.0)) : NaN
    plot for [b in backends] for [i = 1:words(formats)] data using (at(b, word(formats, i), i)):'GB_s' \
            with lines lc rgb format_colour(word(formats, i)) lw 1.1 dt dash(b), \
         for [b in backends] for [i = 1:words(formats)] data using (at(b, word(formats, i), i)):'GB_s':'GB_s_p10':'GB_s_p90' \
            with yerrorbars lc rgb format_colour(word(formats, i)) lw 1 ps 0.8 \
            pt (b eq backend ? format_mark(word(formats, i)) : hollow(format_mark(word(formats, i))))
}
unset multiplot
