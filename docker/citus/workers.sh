#!/bin/bash
# Adds the workers to the coordinator. Repeating it changes nothing.
set -eu

PGPASSWORD=$POSTGRES_PASSWORD psql -v ON_ERROR_STOP=1 -X -q -h wallet-db -U "$POSTGRES_USER" -d "$POSTGRES_DB" \
  -v app="${POSTGRES_DB}_app" <<'SQL'
SELECT citus_set_coordinator_host('wallet-db', 5432);
SELECT citus_add_node('wallet-worker-1', 5432);
SELECT citus_add_node('wallet-worker-2', 5432);
-- What purse sets for its sessions does not reach the workers.
ALTER ROLE :"app" SET statement_timeout = '3000ms';
ALTER ROLE :"app" SET lock_timeout = '1000ms';
ALTER ROLE :"app" SET idle_in_transaction_session_timeout = '5000ms';
ALTER ROLE :"app" SET enable_seqscan = off;
ALTER ROLE :"app" SET enable_bitmapscan = off;
ALTER ROLE :"app" SET enable_hashjoin = off;
ALTER ROLE :"app" SET enable_mergejoin = off;
ALTER ROLE :"app" SET jit = off;
SQL
