#!/bin/bash
# Runs once, when a database's volume is empty: creates the two accounts of a role's database.
#   <database>_owner  owns the database; only the migrations run as it
#   <database>_app    may connect; the migrations grant it the rights that the running role needs, and no others
# The image sources this file where it is not executable, so it never calls `exit`.
set -eu
export OWNER_PASSWORD APP_PASSWORD

# The passwords go through the environment, not through arguments, which a process list shows.
PGPASSWORD=$POSTGRES_PASSWORD psql -v ON_ERROR_STOP=1 -X -q -U "$POSTGRES_USER" -d "$POSTGRES_DB" \
  -v database="$POSTGRES_DB" -v owner="${POSTGRES_DB}_owner" -v app="${POSTGRES_DB}_app" <<'SQL'
\getenv owner_password OWNER_PASSWORD
\getenv app_password APP_PASSWORD
SET password_encryption = 'scram-sha-256';
CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password';
CREATE ROLE :"app"   LOGIN PASSWORD :'app_password';
ALTER DATABASE :"database" OWNER TO :"owner";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"app";
-- These accounts do not use the other databases of this server.
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
SQL
