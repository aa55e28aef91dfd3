#!/usr/bin/env bash
# cppcheck over the C sources, shellcheck over the scripts. Exit 1 on any finding.
set -eu
cd "$(dirname "$0")/.."
mapfile -t c < <(git ls-files -- '*.c')
mapfile -t sh < <(git ls-files -- '*.sh' '.ci/run')
echo "lint: cppcheck, ${#c[@]} files"
cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
    --suppress=missingIncludeSystem --suppress=invalidPointerCast -Ikernels -I. -D_GNU_SOURCE -j "$(nproc)" "${c[@]}"
echo "lint: shellcheck, ${#sh[@]} files"
shellcheck "${sh[@]}"
echo "lint: clean"
