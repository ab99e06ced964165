# Every command of the project. `just` alone lists them; `./justw` is the same on a machine without just.

# The build cache lives outside the checkout, so that another clone does not compile everything again.
export CARGO_TARGET_DIR := env("CARGO_TARGET_DIR", env("XDG_CACHE_HOME", env("HOME", "/tmp") / ".cache") / "purse" / "target")

purse := CARGO_TARGET_DIR / "release" / "purse"

[private]
default:
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} --list --unsorted

# Start PostgreSQL, RabbitMQ and both roles; Ctrl-C ends them, the data stays
[group('run')]
up: servers
    cargo build --release --locked
    @# On a terminal Ctrl-C is meant for `dev up` alone: in a job of its own, so that an orderly end is no error of `just`.
    @if [ -t 0 ] && [ -t 1 ]; then set -m; {{ quote(purse) }} dev up; else exec {{ quote(purse) }} dev up; fi

# End an `up` that runs in another terminal
[group('run')]
down: _built
    @exec {{ quote(purse) }} dev down

# Show what runs (exit code 1 when nothing does)
[group('run')]
[no-exit-message]
status: _built
    @exec {{ quote(purse) }} dev status

# Remove the data of `up`
[group('run')]
reset: _built
    @exec {{ quote(purse) }} dev reset

# Install the PostgreSQL and RabbitMQ packages where they are missing
[group('set-up')]
servers:
    #!/bin/sh
    set -eu
    has_postgres() {
      [ -x "${PG_BIN_DIR:-/nowhere}/initdb" ] || command -v initdb >/dev/null && return 0
      for found in /usr/lib/postgresql/*/bin/initdb /opt/homebrew/opt/postgresql*/bin/initdb \
        /usr/local/opt/postgresql*/bin/initdb /home/linuxbrew/.linuxbrew/opt/postgresql*/bin/initdb; do
        [ -x "$found" ] && return 0
      done
      return 1
    }
    has_rabbitmq() {
      for found in "${RABBITMQ_SERVER:-/nowhere}" /usr/lib/rabbitmq/bin/rabbitmq-server /opt/homebrew/sbin/rabbitmq-server \
        /usr/local/sbin/rabbitmq-server /home/linuxbrew/.linuxbrew/sbin/rabbitmq-server; do
        [ -x "$found" ] && return 0
      done
      command -v rabbitmq-server >/dev/null
    }
    has_postgres && has_rabbitmq && exit 0
    if command -v apt-get >/dev/null; then
      as_root=
      [ "$(id -u)" = 0 ] || as_root=sudo
      if [ -n "$as_root" ] && ! command -v sudo >/dev/null; then
        echo "PostgreSQL or RabbitMQ is missing. As root, run: apt-get install -y --no-install-recommends postgresql rabbitmq-server" >&2
        exit 69
      fi
      echo "Installing PostgreSQL and RabbitMQ (once; about a minute)"
      $as_root apt-get update
      $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql rabbitmq-server
    elif command -v brew >/dev/null; then
      echo "Installing PostgreSQL and RabbitMQ (once; some minutes)"
      brew install postgresql@17 rabbitmq
    else
      echo "PostgreSQL or RabbitMQ is missing. Install both servers with this system's package manager, or name them with PG_BIN_DIR and RABBITMQ_SERVER." >&2
      exit 69
    fi

# Build the release binary
[group('build')]
build:
    cargo build --release --locked

# Format the code
[group('build')]
fmt:
    cargo fmt

# Check the formatting, and clippy with every warning denied
[group('check')]
lint:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings

# Everything that has to pass: formatting, clippy, all tests on real servers, and a total
[group('check')]
test: servers lint
    #!/usr/bin/env bash
    set -uo pipefail
    results=$(mktemp)
    trap 'rm -f "$results"' EXIT
    cargo test --locked --no-fail-fast | tee "$results"
    outcome=$?
    awk -v outcome="$outcome" '
      /^test result:/ {
        for (i = 2; i <= NF; i++) {
          if ($i ~ /^passed/) passed += $(i - 1)
          if ($i ~ /^failed/) failed += $(i - 1)
          if ($i ~ /^ignored/) ignored += $(i - 1)
        }
      }
      END {
        printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored
        if (outcome + 0 != 0) { print "cargo test ended with exit code " outcome; exit 1 }
        if (failed > 0) exit 1
        if (passed == 0) { print "no test was executed, and that is a failure"; exit 1 }
      }' "$results"

# Measure how soon after a registration the wallet is ready, and print the distribution
[group('measure')]
bench-latency: servers
    cargo bench --locked --bench latency

[private]
_built:
    @[ -x {{ quote(purse) }} ] || cargo build --release --locked

import? 'docker/compose.just'
