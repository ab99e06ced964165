#!/bin/sh
# Provides a server that tests run: unpack-tool.sh <package> <program>... Debian's package is unpacked into the cache instead of
# being installed, because an installed one runs as a service.
set -eu
package=$1
shift
into=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/purse/tools/$package
PATH="$PATH:$into/usr/bin"
missing=
for program; do
  command -v "$program" >/dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
  echo "fetching $package into $into" >&2
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  cd "$folder"
  apt-get -q download "$package" || {
    if [ "$(id -u)" = 0 ]; then apt-get update; else sudo apt-get update; fi
    apt-get -q download "$package"
  }
  mkdir -p "$into"
  dpkg-deb --extract "$package"_*.deb "$into"
elif command -v brew >/dev/null; then
  brew install "$package"
else
  echo "$package: the tests need$missing in PATH. Install them with this system's package manager." >&2
  exit 69
fi
