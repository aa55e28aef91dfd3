# lib.awk: shared by the select-*.awk files. Each reads a sorted table with a header line, writes the rows of one picture to
# the file `data` and the picture's gnuplot variables to stdout; exit 3 with a reason on stdout when there is nothing to draw.
BEGIN { FS = OFS = "\t"; failed = 0 }
NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }

function field(name) { return (name in at) ? $(at[name]) : "NaN" }
function is_number(s) { return s ~ /^[-+]?[0-9.]+([eE][-+]?[0-9]+)?$/ }
function cannot(reason) { failed = 1; print reason; exit 3 }
function quoted(s) { gsub(/'/, "''", s); return "'" s "'" }
function assign(name, value) { print name " = " quoted(value) }
function assign_number(name, value) { print name " = " value }

# Adds word to a blank-separated list once.
function with_word(list, word) { return index(" " list " ", " " word " ") ? list : list (list == "" ? "" : " ") word }

# list less the words of drop.
function without(list, drop,    a, n, i, result) {
    result = ""
    n = split(list, a, " ")
    for (i = 1; i <= n; i++) if (!index(" " drop " ", " " a[i] " ")) result = with_word(result, a[i])
    return result
}

# The words of list, those named in first (blank-separated) leading, in that order.
function ordered(list, first,    a, n, i, result) {
    result = ""
    n = split(first, a, " ")
    for (i = 1; i <= n; i++) if (index(" " list " ", " " a[i] " ")) result = with_word(result, a[i])
    n = split(list, a, " ")
    for (i = 1; i <= n; i++) result = with_word(result, a[i])
    return result
}
