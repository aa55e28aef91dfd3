#!/usr/bin/env bash
# The gates themselves: unchanged kernels pass, each planted bug fails the gate that is named, and the message says where.
# GATES and PLANTED are the two builds of fourbit-gates (build.mk sets them).
set -u
cd "$(dirname "$0")/../.." || exit 2
: "${GATES:?the program fourbit-gates}" "${PLANTED:?the program with planted bugs}"
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

ok() { passed=$((passed + 1)); echo "  ok: $1"; }
bad() { failed=$((failed + 1)); echo "  FAILED: $1"; sed 's/^/    | /' "$work/log" | head -n 30; }

# gate program gate: one run of scripts/gates.sh against baselines of its own
gate() { BACKENDS='reference cpu-portable' GATES_PROGRAM=$1 BASELINES=$work/baselines scripts/gates.sh "${@:2}" > "$work/log" 2>&1; }

# caught bug gate words...: the clean program passes, the planted one fails with these words
caught() {
    local bug=$1 name=$2 word
    if GATES_PLANT=$bug gate "$PLANTED" "$name"; then bad "$bug passes gate $name"; return; fi
    for word in "gate ${name}[a-z/-]*: FAILED" "${@:3}"; do
        grep -qE -- "$word" "$work/log" || { bad "$bug: gate $name does not say \"$word\""; return; }
    done
    ok "$bug is caught by gate $name"
}

# refused title words gate: the clean program does not pass, and says so
refused() {
    if gate "$GATES" "$3"; then bad "$1"; elif grep -q -- "$2" "$work/log"; then ok "$1"; else bad "$1"; fi
}

gates=(hashes counters)
command -v valgrind > /dev/null 2>&1 && gates+=(instructions)
if nm "$GATES" 2> /dev/null | grep -q __asan_init; then
    gates=(hashes counters)
    echo "  not run: instructions: valgrind and AddressSanitizer exclude each other"
elif [ ${#gates[@]} -eq 2 ]; then
    echo "  not run: instructions: valgrind is missing (apt install valgrind)"
fi

if gate "$GATES" --update "${gates[@]}" && gate "$GATES" "${gates[@]}"; then ok "a second run gives the same figures"; else bad "two runs of one build differ"; fi
caught swapped-nibble hashes 'quantize/nf4/b64/bf16/37x259: codes was [0-9a-f]{16}, is' 'codes\[1[0-9]+\] is 0x.*1 of 4792 differ'
caught changed-rounding hashes 'dequantize/nf4/b64/bf16/37x259: out was'
if grep -q 'dequantize/nf4/b64/fp32/37x259: out was' "$work/log"; then bad "changed-rounding moved fp32 too"; else ok "and fp32, which it spares, is not named"; fi
caught extra-barrier counters 'quantize8/signed/b256/bf16/64x512:1:.*: barriers was [0-9]+, is [0-9]+ \(\+100.00 %\)'
[ ${#gates[@]} -lt 3 ] || caught lost-vector-load instructions 'dequantize/nf4/b64/bf16/32x512: loads was [0-9]+, is [0-9]+ \(\+'

sed -i '3d' "$work/baselines/hashes.txt"
refused "a new case asks for a baseline" 'not in the baseline' hashes
: > "$work/baselines/hashes.txt"
refused "an empty baseline fails" 'has no figures' hashes
rm "$work/baselines/hashes.txt"
refused "no baseline is said, and is no pass" 'no baseline hashes.txt: not gated' hashes
refused "an unknown gate is refused" 'moon is no gate' moon

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
