# awk -v tolerance=PERCENT -v limit=LINES -f gate-diff.awk BASELINE NEW
# Lines are "name key=value ...". Prints every value that moved by more than the tolerance (0: at all), lines that are gone
# and lines that are new. Exit status 1 if there is any, and 3 if either file has no line at all.
/^#/ { next }
NF == 0 { next }
FNR == NR { baseline++ }
FNR != NR { lines++ }
{
    for (i = 2; i <= NF; i++) {
        at = index($i, "=")
        if (FNR == NR) old[$1, substr($i, 1, at - 1)] = substr($i, at + 1)
        else fresh[$1, substr($i, 1, at - 1)] = substr($i, at + 1)
    }
    if (FNR == NR) { if (!($1 in was)) order[++count] = $1; was[$1] = $0 }
    else { if (!($1 in was)) order[++count] = $1; is[$1] = $0 }
}
function say(text) { if (++said <= limit) print "  " text }
function moved(a, b) {
    if (a == b) return 0
    if (tolerance == 0 || a !~ /^[0-9]+$/ || b !~ /^[0-9]+$/) return 1
    return !(b - a <= a * tolerance / 100 && a - b <= a * tolerance / 100)
}
function describe(name, key, a, b,    change) {
    change = ""
    if (length(a) < 16 && length(b) < 16 && a ~ /^[0-9]+$/ && b ~ /^[0-9]+$/ && a > 0) change = sprintf(" (%+.2f %%)", 100 * (b - a) / a)
    return sprintf("%s: %s was %s, is %s%s", name, key, a == "" ? "none" : a, b == "" ? "none" : b, change)
}
END {
    if (!baseline || !lines) exit 3
    for (n = 1; n <= count; n++) {
        name = order[n]
        if (!(name in is)) { say(name ": gone; it was in the baseline"); continue }
        if (!(name in was)) { say(name ": new; not in the baseline"); continue }
        fields = split(was[name] " " is[name], part, " ")
        split("", done)
        for (i = 1; i <= fields; i++) {
            at = index(part[i], "=")
            key = substr(part[i], 1, at - 1)
            if (!at || key in done) continue
            done[key] = 1
            if (moved(old[name, key], fresh[name, key])) say(describe(name, key, old[name, key], fresh[name, key]))
        }
    }
    if (said > limit) print "  ... and " said - limit " more"
    exit said > 0
}
