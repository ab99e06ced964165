#!/bin/sh
# Runs the `compose-…` recipes and `image`: `stack.sh up | down | reset | logs | smoke | backup | restore <time> |
# image <name>`. Environment variables:
#   PURSE_DOCKER_BUILD_FLAGS  extra flags for `docker build`, for example behind a proxy
#   PURSE_COMPOSE_WAIT_S      seconds that `up` waits until both roles are ready (300)
#   COMPOSE_PROJECT_NAME      name of the stack (purse)
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
project=${COMPOSE_PROJECT_NAME:-purse}
example=$root/config/.env.example
secrets=$root/.env
# Exit codes from sysexits.h, as in the binary.
bad_usage=64
unavailable=69

fail() {
  echo "compose: $2" >&2
  exit "$1"
}

need_engine() {
  docker info >/dev/null 2>&1 ||
    fail $unavailable "Docker is not running here. Start it, or run the same stack without containers: ./justw up"
}

# Sets $compose to `docker compose` or `docker-compose`, whichever is installed.
need_compose() {
  if docker compose version >/dev/null 2>&1; then
    compose='docker compose'
  elif command -v docker-compose >/dev/null; then
    compose=docker-compose
  else
    fail $unavailable "neither \`docker compose\` nor \`docker-compose\` is installed. Install Docker's Compose plugin, or run: ./justw up"
  fi
}

# Replaces this process with Compose, using the files of this project.
compose() {
  environment=$secrets
  # Only `up` needs the real passwords; the others need any values with which compose.yaml is valid.
  [ -f "$environment" ] || environment=$example
  export PURSE_ENV_FILE="$environment"
  # Two words on purpose, where it is the plugin.
  # shellcheck disable=SC2086
  exec $compose --project-name "$project" --file "$root/docker/compose.yaml" --env-file "$environment" "$@"
}

# Prints the value of a variable as Compose sees it, from the shell or `.env`; the default is $2.
setting() {
  eval "value=\${$1:-}"
  [ -n "$value" ] || value=$(sed -n "s/^$1=//p" "$secrets" 2>/dev/null | tail -n 1)
  echo "${value:-$2}"
}

random_password() {
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

# Generates `.env` from the example, with a random password for each `change-me`.
generate_secrets() {
  [ ! -f "$secrets" ] || return 0
  # The servers keep the passwords of their first start, so new ones would not open existing data.
  [ -z "$(docker volume ls --quiet --filter "label=com.docker.compose.project=$project")" ] ||
    fail $bad_usage "an earlier stack left data, but .env with its passwords is missing. Restore .env, or delete the data: ./justw compose-reset"
  draft=$(umask 077 && mktemp "$secrets.XXXXXX")
  while IFS= read -r line; do
    case $line in
      [!#]*=change-me) echo "${line%change-me}$(random_password)" ;;
      *) printf '%s\n' "$line" ;;
    esac
  done <"$example" >"$draft"
  mv "$draft" "$secrets"
  echo "Generated .env from config/.env.example, with random passwords"
}

# Prints the flags with which the build trusts the certificate authorities that were added to this machine, such as a
# company's proxy: they name a toolchain image with those certificates. Prints nothing where none were added.
trust_flags() {
  added=/usr/local/share/ca-certificates
  [ -n "$(find "$added" -name '*.crt' 2>/dev/null)" ] || return 0
  printf 'FROM rust:1.95-bookworm\nCOPY . %s/\nRUN update-ca-certificates\n' "$added" |
    docker build --quiet --tag purse-toolchain:local --file - "$added" >/dev/null
  echo '--build-arg RUST_IMAGE=purse-toolchain:local'
}

# build <name>: builds the image under that name.
build() {
  PURSE_VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
  export PURSE_VERSION
  # Outside a git checkout, or in one that git does not trust, the revision is unknown.
  revision=$(git -C "$root" describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || echo unknown)
  echo "Building the image (a few minutes the first time: every dependency is compiled)"
  trust=$(trust_flags)
  # With `docker build`, because Compose does not accept extra flags; they are several words on purpose.
  # shellcheck disable=SC2086
  docker build --tag "$1" --file "$root/docker/Dockerfile" --build-arg "VERSION=$PURSE_VERSION" \
    --build-arg "REVISION=$revision" --build-arg "CREATED=$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
    $trust ${PURSE_DOCKER_BUILD_FLAGS:-} "$root"
}

# Prints the state of each service, one per line.
states() {
  docker ps --all --filter "label=com.docker.compose.project=$project" \
    --format '{{.Label "com.docker.compose.service"}} {{.Status}}' | sort | while read -r service status; do
    case $status in
      *'(healthy)'*) echo "$service ready" ;;
      *'(unhealthy)'*) echo "$service NOT READY" ;;
      Up*) echo "$service starting" ;;
      Created*) echo "$service waiting" ;;
      *) echo "$service $status" ;;
    esac
  done
}

is_ready() {
  printf '%s\n' "$now" | grep -qx "$1 ready"
}

# give_up <why>: shows the last log lines of both roles, and fails.
give_up() {
  (compose logs --tail=10 users wallet) >&2 || true
  fail $unavailable "$1; the last log lines of both roles are above, all logs in: ./justw compose-logs"
}

# Starts everything, and reports each change of state until both roles are ready.
start() {
  compose up --detach --no-build --remove-orphans &
  starting=$!
  # A background child of a shell ignores Ctrl-C.
  trap 'kill "$starting" 2>/dev/null || true; exit 130' INT TERM
  begin=$(date +%s)
  limit=${PURSE_COMPOSE_WAIT_S:-300}
  shown=
  while :; do
    waited=$(($(date +%s) - begin))
    # Checked before the states: a container that Compose may still replace is not ready yet.
    if [ -n "$starting" ] && ! kill -0 "$starting" 2>/dev/null; then
      wait "$starting" || fail $unavailable "the stack did not start; the reason is above, details in ./justw compose-logs. If a port is in use, change it in .env"
      starting=
    fi
    now=$(states)
    if [ "$now" != "$shown" ]; then
      printf '%3d s  %s\n' "$waited" "$(printf '%s\n' "$now" | paste -s -d , - | sed 's/,/, /g')"
      shown=$now
    fi
    [ -z "$starting" ] && is_ready users && is_ready wallet && return
    # With these exit codes a role reports a permanent error, which waiting does not change.
    printf '%s\n' "$now" | grep -qE "^(users|wallet) Restarting \(($bad_usage|$unavailable)\)" && give_up 'a role cannot start'
    [ "$waited" -lt "$limit" ] || give_up "not ready after $limit s"
    sleep 1
  done
}

up() {
  generate_secrets
  image=$(setting PURSE_IMAGE '')
  if [ -n "$image" ]; then
    docker image inspect "$image" >/dev/null 2>&1 || docker pull "$image" ||
      fail $unavailable "$image (PURSE_IMAGE in .env) could not be pulled; the reason is above"
  else
    build purse:local
  fi
  start
  cat <<EOF

users     http://localhost:$(setting USERS_PORT 3002)
wallet    http://localhost:$(setting WALLET_PORT 3001)
RabbitMQ  http://localhost:$(setting RABBITMQ_MANAGEMENT_PORT 15672)  (RABBITMQ_USER and RABBITMQ_PASSWORD of .env)

./justw compose-smoke tests it, ./justw compose-logs shows all logs, ./justw compose-down stops it and keeps the data.
EOF
}

backup() {
  compose run --rm -T backup
}

# restore <time> | latest: stops the roles, restores both databases, starts the roles and republishes events.
restore() {
  (compose stop users wallet)
  restored=$(compose run --rm -T backup sh /purse/restore.sh "${1-}") ||
    fail $unavailable "nothing was restored; the reason is above. The roles are stopped; to start them: ./justw compose-up"
  printf '%s\n' "$restored"
  (start)
  # Users who are missing from the wallet database get their wallet again.
  since=$(printf '%s\n' "$restored" | tr -d '\r' | sed -n 's/^since: //p')
  compose exec -T users purse outbox republish --since "$since"
}

smoke() {
  USERS_URL=${USERS_URL:-http://localhost:$(setting USERS_PORT 3002)}
  WALLET_URL=${WALLET_URL:-http://localhost:$(setting WALLET_PORT 3001)}
  export USERS_URL WALLET_URL
  exec "$root/docker/smoke.sh"
}

case ${1:-} in
  smoke) smoke ;;
  up | down | reset | logs | backup | restore)
    need_engine
    need_compose
    ;;
esac
case ${1:-} in
  up) up ;;
  down) compose down --remove-orphans ;;
  reset) compose down --remove-orphans --volumes ;;
  logs) compose logs --follow --tail=100 ;;
  image)
    need_engine
    [ -n "${2-}" ] || fail $bad_usage "usage: stack.sh image <name>"
    build "$2"
    ;;
  backup) backup ;;
  restore) restore "${2-}" ;;
  *) fail $bad_usage "usage: stack.sh up | down | reset | logs | smoke | backup | restore <time> | image <name>" ;;
esac
