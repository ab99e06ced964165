#!/bin/sh
# Restores both databases from a backup: restore.sh <time> | latest. The roles must not run. Afterwards migrate, start the roles,
# and republish the events since the time that is printed: docs/operations.md, "Back up and restore".
#   WALLET_MIGRATION_DATABASE_URL, USERS_MIGRATION_DATABASE_URL  the databases, as their owners
set -eu
folder=${BACKUP_FOLDER:-/backups}

fail() {
  echo "restore: $1" >&2
  exit 64
}

list() {
  find "$folder" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*Z' | sort | sed 's|.*/||'
}

case ${1-} in
  latest) name=$(list | tail -n 1) ;;
  [0-9]*Z) name=$1 ;;
  *) fail "usage: restore.sh <time> | latest. There are: $(list | paste -s -d ' ' -)" ;;
esac
if [ -z "$name" ] || [ ! -d "$folder/$name" ]; then
  fail "there is no backup ${1-}. There are: $(list | paste -s -d ' ' -)"
fi

# Each database in one transaction: it is restored, or it is as before.
restore() {
  pg_restore --clean --if-exists --single-transaction --dbname="$2" "$folder/$name/$1.dump"
}

restore wallet "$WALLET_MIGRATION_DATABASE_URL"
restore users "$USERS_MIGRATION_DATABASE_URL"
echo "restore: $name"
echo "since: $(cat "$folder/$name/since")"
