#!/usr/bin/env bash
# Mutates each rule of the domain and application layers, and fails when a mutant survives that docs/mutants.md does not
# explain: mutants.sh [<argument of cargo mutants>...]
set -uo pipefail
export CARGO_TARGET_DIR=$CARGO_TARGET_DIR/mutants
mutants=(cargo mutants --output "$CARGO_TARGET_DIR" --timeout 120 --no-shuffle
  --file 'src/*/domain/*.rs' --file 'src/*/application/*.rs')
# Survivors (2) and timeouts (3) are judged below; any other code is an error.
judged() { local code=$?; case $code in 0 | 2 | 3) ;; *) exit $code ;; esac; }
# The rules' own tests first; survivors then meet the tests that use fakes of the ports.
"${mutants[@]}" "$@" -- --locked --lib -- domain:: application::; judged
survivors=$CARGO_TARGET_DIR/mutants.out/missed.txt
if [ -s "$survivors" ]; then
  "${mutants[@]}" --iterate "$@" -- --locked --test it -- use_cases::; judged
fi
# shellcheck disable=SC2016  # The backquotes are Markdown's.
unexplained=$(grep --invert-match --fixed-strings --file <(sed -n 's/^- `\(.*\)`: .*/\1/p' docs/mutants.md) "$survivors")
if [ -n "$unexplained" ]; then
  printf 'These mutants survive, and docs/mutants.md does not explain why:\n%s\n' "$unexplained"
  exit 1
fi
echo "No mutant survives except those that docs/mutants.md explains."
