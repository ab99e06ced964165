#!/bin/sh
# Provides prometheus and promtool for the tests of metrics and alerts. Debian's package is unpacked into the cache
# instead of being installed, because an installed one runs as a service.
set -eu
into=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/purse/tools/prometheus
PATH="$PATH:$into/usr/bin"
! command -v prometheus >/dev/null || ! command -v promtool >/dev/null || exit 0

if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
  echo "fetching Prometheus into $into" >&2
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  cd "$folder"
  apt-get -q download prometheus || {
    if [ "$(id -u)" = 0 ]; then apt-get update; else sudo apt-get update; fi
    apt-get -q download prometheus
  }
  mkdir -p "$into"
  dpkg-deb --extract prometheus_*.deb "$into"
elif command -v brew >/dev/null; then
  brew install prometheus
else
  echo "prometheus: the tests of metrics need prometheus and promtool in PATH. Install them with this system's package manager." >&2
  exit 69
fi
