#!/usr/bin/env bash
# Tests or measures a ledger with four shards on Citus. PG_BIN_DIR names the programs of a PostgreSQL that has the extension; without
# it, the newest installed one is used.
set -euo pipefail
export WALLET_SHARDS=${WALLET_SHARDS:-4}

found=(/usr/lib/postgresql/*/bin)
bin=${PG_BIN_DIR:-$(printf '%s\n' "${found[@]}" | sort -V | tail -n 1)}
library=$("$bin/pg_config" --pkglibdir 2>/dev/null || true)
if [ ! -e "$library/citus.so" ]; then
  echo "citus: the PostgreSQL in $bin has no extension citus (${library:-no folder of libraries}/citus.so is missing)." >&2
  echo "citus: install it there, or set PG_BIN_DIR to the folder of programs of a PostgreSQL that has it." >&2
  exit 69
fi
export PG_BIN_DIR=$bin

case "${1:-}" in
  test)
    shift
    exec cargo test --locked --features failpoints --test it -- --include-ignored --test-threads 1 --show-output "${@:-faults::long::citus}"
    ;;
  bench) exec cargo bench --locked --bench citus ;;
  *) echo "usage: $0 test [word...] | bench" >&2; exit 64 ;;
esac
