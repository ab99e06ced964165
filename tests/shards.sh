#!/usr/bin/env bash
# Runs integration tests with four shards on one PostgreSQL: those of the ledger (`ledger`), those that interrupt a post (`faults`),
# or all others (`others`).
set -euo pipefail
export WALLET_SHARDS=4

# What writes and reads the ledger.
ledger=(
  accounts_model:: bulk:: concurrency:: holds:: ledger_chain ledger_posters:: ledger_shards:: ledger_statements:: ledger_texts::
  operate_ledger:: provisioning:: receipts:: reversals:: service_tokens:: transfers
)

# Not run with shards, and why.
skipped=(
  # They name the tables, plans, constraints or privileges of a ledger in one schema.
  query_plans database_rights:: versions:: ledger_upgrade:: deployment:: doctor:: plain_english:: database_sessions:: log_secrets::
  metrics:: traces:: releases:: fp_35
  openapi_responses::every_response_of_the_wallet_role runbooks::a_hold_whose_end_cannot_be_written
  # They set limits or a search path for all sessions of the database, those of the tests too.
  servers::
  # A test's own schema, which sees all shards, would be in the dump.
  backups:: restore:: operate_handbook::
  # A transfer to another shard has more statements, and its recipients are in any.
  transfers_equal_work::
  # They need no wallet database, or change nothing there that depends on shards.
  packages:: observability:: clients:: clients_routes:: docs:: docs_markdown:: docs_page::
  broker_confirms:: broker_faults:: broker_rights:: broker_urls::
)
skip=()
for name in "${skipped[@]}"; do skip+=(--skip "$name"); done

case "${1:-}" in
  ledger) exec cargo test --locked --no-fail-fast --test it -- "${ledger[@]}" "${skip[@]}" ;;
  faults)
    exec cargo test --locked --no-fail-fast --features failpoints,otlp --test it -- \
      faults::acts faults::groups faults::holds faults::posting faults::transfers --skip faults::long
    ;;
  others)
    for name in "${ledger[@]}"; do skip+=(--skip "$name"); done
    exec cargo test --locked --no-fail-fast --features failpoints,otlp --test it -- --skip faults::long "${skip[@]}"
    ;;
  *) echo "usage: $0 ledger | faults | others" >&2; exit 64 ;;
esac
