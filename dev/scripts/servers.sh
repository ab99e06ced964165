#!/bin/sh
# Installs PostgreSQL and RabbitMQ where they are missing. `up`, the tests and the benchmarks start private servers
# from these packages.
set -eu

has() {
  for program; do
    [ ! -x "$program" ] || return 0
  done
  return 1
}

missing=
has "${PG_BIN_DIR:-/nowhere}/initdb" "$(command -v initdb || true)" /usr/lib/postgresql/*/bin/initdb \
  /opt/homebrew/opt/postgresql*/bin/initdb /usr/local/opt/postgresql*/bin/initdb \
  /home/linuxbrew/.linuxbrew/opt/postgresql*/bin/initdb || missing='postgresql=postgresql@17'
has "${RABBITMQ_SERVER:-/nowhere}" "$(command -v rabbitmq-server || true)" /usr/lib/rabbitmq/bin/rabbitmq-server \
  /opt/homebrew/sbin/rabbitmq-server /usr/local/sbin/rabbitmq-server \
  /home/linuxbrew/.linuxbrew/sbin/rabbitmq-server || missing="$missing rabbitmq-server=rabbitmq"
[ -n "$missing" ] || exit 0

# shellcheck disable=SC2086  # Several words on purpose.
"$(dirname -- "$0")/install.sh" $missing || {
  echo "servers: if PostgreSQL and RabbitMQ are installed elsewhere, set PG_BIN_DIR and RABBITMQ_SERVER." >&2
  exit 69
}
