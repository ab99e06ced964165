#!/bin/sh
# Checks that Rust is installed and new enough, before anything else is installed or built.
# The required version is `rust-version` in Cargo.toml.
set -eu
# rustup reads rust-toolchain.toml from the current folder.
cd "$(dirname -- "$0")/../.."
required=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

fail() {
  echo "purse needs $1" >&2
  exit 69
}

for program in cargo rustc; do
  command -v "$program" >/dev/null && continue
  cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
  [ ! -x "$cargo_home/bin/$program" ] ||
    fail "Rust $required or later: $program is installed but not in PATH. Run: . \"$cargo_home/env\" (see https://rustup.rs)"
  fail "Rust $required or later: $program was not found. Install Rust from https://rustup.rs, open a new shell, and try again."
done

found=$(rustc --version) || fail "Rust $required or later: rustc does not start; its message is above. To use another installed toolchain, set RUSTUP_TOOLCHAIN (https://rustup.rs)."
if ! echo "$found" | awk -v required="$required" '{
    split($2, have, "."); split(required, want, ".")
    exit !(have[1] + 0 > want[1] + 0 || have[1] == want[1] && have[2] + 0 >= want[2] + 0)
  }'; then
  update='Install a newer version from https://rustup.rs'
  ! command -v rustup >/dev/null || update='Run: rustup update stable (https://rustup.rs)'
  fail "Rust $required or later: $(command -v rustc) is $found. $update"
fi

command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null ||
  fail "a C compiler, because Rust links with it, and none was found. Install one (Debian: apt-get install build-essential; macOS: xcode-select --install)."
