#!/bin/sh
# Dumps both databases into $BACKUP_FOLDER/<time>, and deletes all but the newest $BACKUP_KEEP (7). The wallet database is
# first: docs/operations.md ("Back up and restore") says why. A backup is complete or it does not exist.
#   WALLET_MIGRATION_DATABASE_URL, USERS_MIGRATION_DATABASE_URL  the databases, as their owners
set -eu
folder=${BACKUP_FOLDER:-/backups}
keep=${BACKUP_KEEP:-7}
case $keep in
  '' | *[!0-9]* | 0*)
    echo "backup: BACKUP_KEEP is \`$keep\`, not a whole number above 0" >&2
    exit 64
    ;;
esac
umask 077
now=$(date -u +%Y-%m-%dT%H-%M-%SZ)
# A restore publishes the events of the hour before again.
since=$(date -u -d '1 hour ago' +%Y-%m-%dT%H:%M:%SZ)
draft=$folder/.$now.partial
trap 'rm -rf "$draft"' EXIT
trap 'exit 130' INT TERM
mkdir "$draft"
echo "$since" >"$draft/since"
pg_dump --format=custom --file="$draft/wallet.dump" "$WALLET_MIGRATION_DATABASE_URL"
pg_dump --format=custom --file="$draft/users.dump" "$USERS_MIGRATION_DATABASE_URL"
for dump in wallet users; do
  # Reads the whole dump.
  pg_restore --file=/dev/null "$draft/$dump.dump"
done
mv "$draft" "$folder/$now"
echo "backup: $now"

# The names sort by time, newest first.
find "$folder" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*Z' | sort -r | tail -n "+$((keep + 1))" |
  while read -r old; do
    rm -rf "$old"
    echo "backup: deleted ${old##*/}, because $keep are kept"
  done
