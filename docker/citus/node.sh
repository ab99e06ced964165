#!/bin/bash
# Runs once on the coordinator and on each worker, when its volume is empty and its accounts are created: makes it a node of Citus.
# The image sources this file where it is not executable, so it never calls `exit`.
set -eu
export OWNER_PASSWORD APP_PASSWORD

PGPASSWORD=$POSTGRES_PASSWORD psql -v ON_ERROR_STOP=1 -X -q -U "$POSTGRES_USER" -d "$POSTGRES_DB" \
  -v admin="$POSTGRES_USER" -v owner="${POSTGRES_DB}_owner" -v app="${POSTGRES_DB}_app" <<'SQL'
\getenv admin_password POSTGRES_PASSWORD
\getenv owner_password OWNER_PASSWORD
\getenv app_password APP_PASSWORD
CREATE EXTENSION IF NOT EXISTS citus;
-- With which password a session of this node goes to any other one.
INSERT INTO pg_dist_authinfo (nodeid, rolename, authinfo)
VALUES (0, :'admin', 'password=' || :'admin_password'),
       (0, :'owner', 'password=' || :'owner_password'),
       (0, :'app',   'password=' || :'app_password');
SQL
