# Heat map of the speed-up over one peer: white at 1.0x, blue where fourbit is faster, orange where the peer is.
# data: column row x y speedup;  data.tics: the names of the columns and rows
# variables: backend, peer, column_count, row_count, cell_w (pixels), limit (log2 of the palette's ends)
cell_h = 24
W = 210 + cell_w * column_count + 30; W = W < 600 ? 600 : W
H = 112 + cell_h * row_count + 34; H = H < 210 ? 210 : H
load style
inside = peer eq 'base'
title = inside ? 'fourbit '.backend.': a layer with an adapter against the product inside it' : 'fourbit '.backend.' against '.peer
caption = inside ? 'Median time of gemm (of lora_backward: gemm_dx) over that of the layer, interleaved samples of one run.' \
                 : 'Speed-up: '.peer."'s median time over ours, interleaved samples of one run."
caption2 = inside ? '1 would be an adapter that costs nothing; 0.96 is one that costs 4 %. Blank: not run.' \
                  : 'Above 1 (blue) fourbit is faster; below (orange) the peer is. Blank: not compared.'.(limit == 4 ? ' Colours end at 16×.' : '')
eval headline
unset key
set border 0
set grid noxtics noytics
set tics scale 0
set lmargin at screen left(210); set rmargin at screen left(210 + cell_w * column_count)
set tmargin at screen top(112); set bmargin at screen top(112 + cell_h * row_count)
set xrange [0.5:column_count + 0.5]; set yrange [row_count + 0.5:0.5]
set ytics () font SMALL
unset xtics
set x2range [0.5:column_count + 0.5]
set x2tics () font SMALL offset 0, -0.3
load data.'.tics'
log2(v) = log(v) / log(2)
clamp(v) = log2(v) > limit ? limit : log2(v) < -limit ? -limit : log2(v)
set palette defined (-1 "#B34700", -0.5 "#EBA063", 0 "#FFFFFF", 0.5 "#6CAAD4", 1 "#00477A")
set cbrange [-limit:limit]
unset colorbox
print_ratio(v) = inside ? sprintf('%.2f×', v) : v >= 9.95 ? sprintf('%.0f×', v) : v >= 0.995 ? sprintf('%.1f×', v) : sprintf('%.2f×', v)
dark(v) = abs(clamp(v)) > 0.62 * limit
plot data using 'x':'y':(column('x') - 0.49):(column('x') + 0.49):(column('y') - 0.47):(column('y') + 0.47):(clamp(column('speedup'))) \
        with boxxyerror fs solid 1 noborder lc palette, \
     data using 'x':(dark(column('speedup')) ? column('y') : NaN):(print_ratio(column('speedup'))) with labels font SMALL tc rgb "white", \
     data using 'x':(dark(column('speedup')) ? NaN : column('y')):(print_ratio(column('speedup'))) with labels font SMALL tc rgb "black"
