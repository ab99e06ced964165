#!/bin/sh
# Runs the tests that depend on the servers on several versions of PostgreSQL: versions.sh [installed|16|17|18]…
#
# Without arguments, on the installed one and on 16 to 18. PG_BIN_DIR and RABBITMQ_SERVER name other servers; with
# PG_BIN_DIR, only that one is tested.
set -eu
cd "$(dirname -- "$0")/.."

[ "$#" -gt 0 ] || set -- installed 16 17 18
[ -z "${PG_BIN_DIR:-}" ] || set -- installed

# Before the first server is fetched.
cargo test --locked --no-run --test it
results=$(mktemp)
trap 'rm -f "$results"' EXIT
failed=0
for version; do
  case $version in
    installed) folder=${PG_BIN_DIR:-} ;;
    *)
      folder=$(dev/scripts/postgres.sh "$version") || {
        echo "PostgreSQL $version: not tested, because it could not be fetched" >>"$results"
        failed=1
        continue
      }
      ;;
  esac
  echo "PostgreSQL $version:" >&2
  status=0
  # The main jobs, provisioning with its retry ladder, the permissions of every account, and the plans of hot statements.
  PG_BIN_DIR=$folder cargo test --locked --test it -- \
    servers::the_versions_of_the_servers end_to_end:: provisioning:: database_rights:: broker_rights:: query_plans:: \
    --show-output >"$results.log" 2>&1 || status=$?
  servers=$(sed -n 's/^servers: //p' "$results.log" | head -n 1)
  total=$(sed -n 's/^test result: [^.]*\. \([0-9]* passed; [0-9]* failed\).*/\1/p' "$results.log")
  echo "${servers:-PostgreSQL $version}: ${total:-no test ran}" >>"$results"
  if [ "$status" != 0 ] || [ -z "$total" ]; then
    failed=1
    grep -v '^{' "$results.log" >&2
  fi
  rm -f "$results.log"
done
cat "$results"
exit "$failed"
