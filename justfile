# Every command of the project. `just` lists them; `./justw` is the same on a machine without just.

# The build cache is outside the checkout, so that clones share it. An empty variable counts as unset.
cache := if env("XDG_CACHE_HOME", "") != "" { env("XDG_CACHE_HOME") / "purse" } else { env("HOME", "/tmp") / ".cache/purse" }
export CARGO_TARGET_DIR := if env("CARGO_TARGET_DIR", "") != "" { env("CARGO_TARGET_DIR") } else { cache / "target" }

# dev/scripts/fetch-tool.sh puts tools here that the machine does not have.
tools := cache / "tools"
export PATH := env("PATH") + ":" + tools / "bin"

# `purse-dev` and the scripts name it in their hints.
export JUST_COMMAND := env("JUST_COMMAND", "just")
purse-dev := CARGO_TARGET_DIR / "release" / "purse-dev"

[no-exit-message, private]
default:
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} --list --unsorted

# Start PostgreSQL, RabbitMQ and both roles; Ctrl-C stops them
[group('run'), no-exit-message]
up: _up
    @# Ctrl-C is meant for `purse-dev` alone: in a job of its own, so that an orderly stop is no error of `just`.
    @if [ -t 0 ]; then set -m; {{ quote(purse-dev) }}; else exec {{ quote(purse-dev) }}; fi

# Everything before the stack starts; `./justw up` starts it in its own place.
[no-exit-message, private]
_up: _idle _rust servers (_first-build "release" "4" "2")
    cargo build --release --locked --workspace

[no-exit-message, private]
_idle: # a build from before this command existed returns another code
    @[ ! -x {{ quote(purse-dev) }} ] || { why=$({{ quote(purse-dev) }} check-idle 2>&1); [ $? != 69 ] || { echo "$why" >&2; exit 69; }; }

# Stop an `up` that runs in another terminal
[group('run'), no-exit-message]
down: _built
    @exec {{ quote(purse-dev) }} down

# Show what is running (exit code 1 unless everything is ready)
[group('run'), no-exit-message]
status: _built
    @exec {{ quote(purse-dev) }} status

# Print the settings of a running `up`: eval "$(./justw env)"
[group('run'), no-exit-message]
env: _built
    @exec {{ quote(purse-dev) }} env

# Delete the data of `up`
[group('run'), no-exit-message]
reset: _built
    @exec {{ quote(purse-dev) }} reset

[no-exit-message, private]
_built:
    @[ -x {{ quote(purse-dev) }} ] || { dev/scripts/need-rust.sh && cargo build --release --locked --workspace; }

# Install PostgreSQL and RabbitMQ where they are missing
[group('set-up'), no-exit-message]
servers:
    @dev/scripts/servers.sh

# Install what else the tests need: Chromium, Python, Node, curl
[group('set-up'), no-exit-message]
test-tools: (_need "prometheus") (_need "caddy")
    @dev/scripts/test-tools.sh

# Build the release binary
[group('build'), no-exit-message]
build: _rust (_first-build "release" "4" "2")
    cargo build --release --locked

# Format the code
[group('build'), no-exit-message]
fmt:
    cargo fmt --all

# Generate, check and pack the clients in TypeScript and Python
[group('build'), no-exit-message]
clients folder="": _rust
    @cargo build --locked --quiet --bin purse
    @{{ quote(CARGO_TARGET_DIR / "debug" / "purse") }} openapi --role all | docs/clients/generate.py
    @dev/scripts/clients.sh {{ quote(if folder == "" { CARGO_TARGET_DIR / "clients" } else { folder }) }}

# Write the Bruno collection docs/bruno from docs/purse.http
[group('build'), no-exit-message]
bruno: _rust
    PURSE_WRITE=1 cargo test --locked --test it -- request_files::the_bruno

# Generate a CycloneDX SBOM, and a binary that embeds its own
[group('build'), no-exit-message]
sbom: _rust (_tool "cargo-cyclonedx") (_tool "cargo-auditable")
    @dev/scripts/sbom.sh

# Regenerate the pictures in docs/images
[group('build'), no-exit-message]
pictures: _rust servers test-tools
    PURSE_PICTURES={{ quote(justfile_directory() / "docs" / "images") }} cargo test --locked --test it -- docs_page::a_newcomer observability::every_panel

# Run all checks: lint, dependencies, all tests, the short faults
[group('check'), no-exit-message]
test: _rust servers test-tools (_tool "git-cliff") (_tool "cargo-deb") (_first-build "debug" "10" "6" "for the tests") lint (deny "error") (lint-openapi "--or-skip")
    @tests/run.sh

# Check the formatting, and run clippy with all warnings denied
[group('check'), no-exit-message]
lint: _rust
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy --all-targets --locked --features failpoints,otlp -- -D warnings

# Test on several versions of PostgreSQL: installed 16 17 18
[group('check'), no-exit-message, positional-arguments]
test-versions *versions: (_check "versions" versions) _rust servers
    @tests/versions.sh "$@"

# Lint the OpenAPI documents with redocly and spectral, from npm
[group('check'), no-exit-message]
lint-openapi flag="": _rust
    @cargo build --locked --quiet --bin purse
    @dev/scripts/lint-openapi.sh {{ quote(CARGO_TARGET_DIR / "debug" / "purse") }} {{ flag }}

# Inject every fault (30 minutes; Linux, as root)
[group('check'), no-exit-message, positional-arguments]
test-faults *words: _rust servers (_need "faketime")
    cargo test --locked --features failpoints --test it -- --skip faults::long::soak --skip faults::long::cluster --show-output "${@:-faults::}"

# Inject random faults under load; SEED=… repeats a run
[group('check'), no-exit-message]
soak seconds="300": (_check "seconds" seconds) _rust servers
    SOAK_S={{ seconds }} cargo test --locked --features failpoints --test it -- faults::long::soak --nocapture

# Mutate domain and application; list the survivors (1 hour)
[group('check'), no-exit-message, positional-arguments]
test-mutants *words: _rust (_tool "cargo-mutants")
    @tests/mutants.sh "$@"

# Install the Debian package under a real systemd (Linux, root)
[group('check'), no-exit-message]
test-packages: _rust servers test-tools (_tool "cargo-deb")
    cargo test --locked --test it -- packages:: --include-ignored

# Test metrics, alerts and dashboards with a real Prometheus
[group('check'), no-exit-message]
test-observability: _rust servers (_need "prometheus")
    cargo test --locked --test it -- metrics:: observability::

# Measure the line coverage of the rules; fails below 90 %
[group('check'), no-exit-message]
coverage: _rust servers test-tools (_tool "git-cliff") (_tool "cargo-deb") (_tool "cargo-llvm-cov")
    @tests/coverage.sh

# Run one fuzz target or all; 30 seconds each, unless given
[group('check'), no-exit-message, positional-arguments]
fuzz seconds="30" target="": (_check "seconds" seconds) (_check "target" target) _rust (_tool "cargo-fuzz")
    @fuzz/run.sh "$1" "$2"

# Send random requests to both roles; none may return a 5xx
[group('check'), no-exit-message]
fuzz-http requests="100000": (_check "requests" requests) _rust servers
    PURSE_FUZZ_REQUESTS={{ requests }} cargo test --locked --test it http_fuzz:: -- --nocapture

# Test both roles against their OpenAPI documents
[group('check'), no-exit-message]
schemathesis examples="50": (_check "examples" examples) _rust servers (_tool "schemathesis")
    PURSE_EXAMPLES={{ examples }} PYTHONPATH={{ quote(tools / "schemathesis") }} cargo test --locked --test it schemathesis:: -- --ignored --nocapture

# Send the Bruno collection to both roles with its own command
[group('check'), no-exit-message]
test-bruno: _rust servers (_tool "bru")
    cargo test --locked --test it request_files::bruno -- --ignored

# Compare random request sequences with the model
[group('check'), no-exit-message]
model sequences="1000": (_check "sequences" sequences) _rust servers
    PROPTEST_CASES={{ sequences }} cargo test --locked --test it any_sequence_of_requests -- --nocapture

# Check licences, bans and sources of the dependencies
[group('check'), no-exit-message]
deny level="warn": _rust (_tool "cargo-deny")
    @cargo fetch --locked --quiet
    @cargo deny --offline --locked --log-level {{ quote(level) }} check --hide-inclusion-graph licenses bans sources

# Check the dependencies for known vulnerabilities
[group('check'), no-exit-message]
advisories: _rust (_tool "cargo-deny")
    @dev/scripts/advisories.sh

# Validate docker/kubernetes; needs no cluster
[group('check'), no-exit-message]
check-kubernetes: (_tool "kubernetes-validate")
    @PYTHONPATH={{ quote(tools / "kubernetes-validate") }} exec python3 -W ignore docker/kubernetes/check.py

# Benchmark all (25 min), or parts: posts transfers bulk reads …
[group('measure'), no-exit-message, positional-arguments]
bench *parts: (_check "parts" parts) _rust servers (_need "wrk")
    cargo bench --locked --bench suite -- "$@"

# Compare one and two instances of a role (4 minutes)
[group('measure'), no-exit-message]
bench-instances: _rust servers
    cargo bench --locked --bench instances

# Build the tarball and the .deb; a target cross-builds
[group('release'), no-exit-message, positional-arguments]
package target="": _rust (_tool "cargo-deb") (_first-build "release" "4" "2")
    @dev/scripts/package.sh "$1"

[no-exit-message, private]
_package: (_tool "cargo-deb")
    @dev/scripts/package.sh --no-build

# Preview the next changelog and version
[group('release'), no-exit-message]
changelog: (_tool "git-cliff")
    @dev/scripts/changelog.sh

# Release main: version, CHANGELOG.md, commit, tag; pushes nothing
[group('release'), no-exit-message]
release: _rust (_tool "git-cliff")
    @dev/scripts/release.sh

[no-exit-message, private]
_rust:
    @dev/scripts/need-rust.sh

# Arguments are checked before anything is installed or built.
[no-exit-message, private]
_check what values:
    @dev/scripts/check-argument.sh {{ what }} {{ quote(values) }}

[no-exit-message, private]
_first-build folder minutes gigabytes why="":
    @dev/scripts/first-build.sh {{ folder }} {{ minutes }} {{ gigabytes }} {{ quote(why) }}

[no-exit-message, private]
_tool name:
    @dev/scripts/fetch-tool.sh {{ name }}

[no-exit-message, private]
_need tool:
    @dev/scripts/need.sh {{ tool }}

import? 'docker/compose.just'
import? 'tests/clusters.just'
