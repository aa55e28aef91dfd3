# style.gp: what every picture has in common. A script sets W and H (pixels), then loads this.
# plot.sh sets: terminal ('svg' or 'png'), picture (output file), data (its table), footer, footer2.

set encoding utf8
set datafile separator "\t"
set datafile columnheaders
# NaN as "missing", not as a point: a line then joins the neighbours that are there.
set datafile missing NaN

# noenhanced: names such as copy_bw or nf4^2 in a result file are printed as they stand.
FONT = "DejaVu Sans"
if (terminal eq 'svg') {
    set terminal svg size W,H font FONT.",11" noenhanced background rgb "white" linewidth 1.2
} else {
    set terminal pngcairo size 2*W,2*H font FONT.",8.5" noenhanced background rgb "white" fontscale 2 linewidth 2.4 pointscale 2
}
set output picture

# Okabe and Ito's palette: eight colours that a colour-blind reader tells apart.
BLACK = 0x000000; ORANGE = 0xE69F00; SKY = 0x56B4E9; GREEN = 0x009E73
YELLOW = 0xF0E442; BLUE = 0x0072B2; VERMILLION = 0xD55E00; PURPLE = 0xCC79A7
GREY = 0x808080; FAINT = 0xE4E4E4

# A format keeps its colour and its mark in every picture, and so does a backend or peer.
format_colour(f) = f eq 'nf4' ? BLUE : f eq 'fp4' ? VERMILLION : f eq 'int4' ? GREEN : f eq 'int4-affine' ? PURPLE : f eq 'e2m1' ? ORANGE : BLACK
format_mark(f) = f eq 'nf4' ? 7 : f eq 'fp4' ? 5 : f eq 'int4' ? 9 : f eq 'int4-affine' ? 13 : 11
format_label(f) = f eq 'nf4' ? 'NF4' : f eq 'fp4' ? 'FP4' : f eq 'int4' ? 'INT4' : f eq 'int4-affine' ? 'INT4 affine' : f
hollow(mark) = mark - 1
# What adapters are tuned on: the formats, NF4 with double quantization, and the two ends, bf16 and the 3-bit control.
tuned_colour(f) = f eq 'nf4+dq' ? SKY : f eq 'int3' ? PURPLE : format_colour(f)
tuned_mark(f) = f eq 'nf4+dq' ? 6 : f eq 'int3' ? 13 : format_mark(f)
tuned_dash(f) = f eq 'nf4+dq' ? 2 : 1
tuned_label(f) = f eq 'nf4+dq' ? 'NF4, double-quantized' : f eq 'int3' ? 'INT3' : f eq 'bf16' ? 'bf16' : format_label(f)

has(s, t) = strstrt(s, t) > 0
backend_colour(b) = b eq 'reference' ? GREY : !has(b, 'peer:') ? (has(b, '+dq') ? SKY : BLUE) : \
    has(b, 'bitsandbytes') ? GREEN : has(b, 'dequant') ? VERMILLION : (has(b, 'openblas') || has(b, 'cublas')) ? ORANGE : \
    has(b, 'dnn') ? BLACK : PURPLE
backend_mark(b) = b eq 'reference' ? 2 : !has(b, 'peer:') ? (has(b, '+dq') ? 6 : 7) : \
    has(b, 'bitsandbytes') ? 13 : has(b, 'dequant') ? 9 : (has(b, 'openblas') || has(b, 'cublas')) ? 5 : 11
backend_label(b) = has(b, 'peer:') ? b[6:*] : 'fourbit '.b

# "a b c" as "a, b, c", without the prefix of a peer
join(list) = words(list) == 0 ? '' : words(list) == 1 ? short(word(list, 1)) : short(word(list, 1)).', '.join(list[strlen(word(list, 1)) + 2:*])
# 4096x11008 as a reader writes it
times(shape) = has(shape, 'x') ? shape[1:strstrt(shape, 'x') - 1].' × '.shape[strstrt(shape, 'x') + 1:*] : shape
short(b) = has(b, 'peer:') ? b[6:*] : b
panel_label(p) = p eq 'quantize' ? 'quantize' : p eq 'dequantize' ? 'dequantize' : has(p, '+dq') ? p[1:strlen(p) - 3].', double-quantized' : p

# Small errors are shown in units of a power of ten: 0.00012 on an axis is hard to read, and its width pushes words off the paper.
exponent_of(x) = x > 0 && x < 0.01 ? int(floor(log10(x))) : 0
superscript(c) = c eq '-' ? '⁻' : word('⁰ ¹ ² ³ ⁴ ⁵ ⁶ ⁷ ⁸ ⁹', int(c) + 1)
superscripts(s) = s eq '' ? '' : superscript(s[1:1]).superscripts(s[2:*])
power_label(k) = k == 0 ? '' : ', × 10'.superscripts(sprintf('%d', k))

set border 3 lc rgb GREY
set tics nomirror out scale 0.6 textcolor rgb "#404040"
set grid back lt 1 lc rgb FAINT lw 0.6
set bars small
# No white halo around a mark: it would hide a short whisker.
set pointintervalbox 0
unset key
# The two terminals place an axis's name at different distances.
set xlabel offset 0, terminal eq 'svg' ? 0.6 : 0
SMALL = FONT.",".(terminal eq 'svg' ? "9.5" : "7.3")
TINY = FONT.",".(terminal eq 'svg' ? "8.5" : "6.5")
BOLD = FONT.":Bold,".(terminal eq 'svg' ? "14" : "10.8")

# Pixels from the left, from the right, from the top, from the bottom, as fractions of the picture.
left(px) = px / (1.0 * W)
right(px) = 1 - px / (1.0 * W)
top(px) = 1 - px / (1.0 * H)
bottom(px) = px / (1.0 * H)

# The words around the plot: set before the first panel, `unset label` after it.
headline = "set label 1 title at screen left(14), top(20) font BOLD textcolor rgb '#000000'; \
    set label 2 caption at screen left(14), top(42) font SMALL textcolor rgb '#404040'; \
    set label 3 caption2 at screen left(14), top(58) font SMALL textcolor rgb '#404040'; \
    set label 4 footer at screen left(14), bottom(12) font TINY textcolor rgb '#707070'"
caption2 = ''

# A legend across the whole picture: a key inside a panel wraps at the panel's width, and the two terminals disagree on the
# width of a text. Set legend_top (pixels from the top), names, and the functions label_of, colour_of and mark_of of a name.
legend = "legend_x = 20; do for [i = 1:words(names)] { name = word(names, i); \
    set label 100 + i label_of(name) at screen left(legend_x), top(legend_top) left offset 1.1, -0.25 font SMALL textcolor rgb '#202020' \
        point pt mark_of(name) ps 0.9 lc rgb colour_of(name); \
    legend_x = legend_x + 36 + 6.3 * strlen(label_of(name)) }"
