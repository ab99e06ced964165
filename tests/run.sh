#!/usr/bin/env bash
# Runs all tests and the short faults, and prints a total.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
dev/scripts/need-space.sh 10 "${PURSE_DEV_DIR:-/var/tmp}" "A run of the tests" "set PURSE_DEV_DIR to a folder on another disk" || exit
results=$(mktemp) || exit
trap 'rm -f "$results"' EXIT
# First the build that is released, then the one with failpoints.
{
  cargo test --workspace --locked --no-fail-fast; product=$?
  tests/shards.sh ledger; shards=$?
  cargo test --locked --no-fail-fast --features failpoints,otlp --test it -- faults:: otlp:: --skip faults::long --skip broker_faults::; faults=$?
  tests/shards.sh faults; shards=$((shards ? shards : $?))
  packages=0
  if [ "$(uname -s)$(id -u)" = Linux0 ] && unshare --mount --uts --ipc --cgroup --pid --fork true 2>/dev/null; then
    cargo test --locked --no-fail-fast --test it -- packages:: --ignored; packages=$?
  else
    echo "The tests that boot a machine were not run: they need Linux, and a root that may create namespaces."
  fi
  exit $((product ? product : shards ? shards : faults ? faults : packages))
} | tee "$results"
stages=("${PIPESTATUS[@]}")
if [ "${stages[1]}" -ne 0 ]; then
  echo "The results were not written: is the disk full?" >&2
  exit 1
fi
outcome=${stages[0]}
awk -v outcome="$outcome" '
  /^test result:/ {
    for (i = 2; i <= NF; i++) {
      if ($i ~ /^passed/) passed += $(i - 1)
      if ($i ~ /^failed/) failed += $(i - 1)
      if ($i ~ /^ignored/) ignored += $(i - 1)
    }
  }
  END {
    printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored
    if (outcome + 0 != 0) { print "cargo test ended with exit code " outcome; exit 1 }
    if (failed > 0) exit 1
    if (passed == 0) { print "no test ran, which counts as a failure"; exit 1 }
  }' "$results"
