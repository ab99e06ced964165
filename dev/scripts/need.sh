#!/bin/sh
# Provides what only some tests and benchmarks use: need.sh prometheus|caddy|wrk|faketime
set -eu
here=$(dirname -- "$0")
case $1 in
  prometheus) exec "$here/unpack-tool.sh" prometheus prometheus promtool ;;
  caddy) exec "$here/unpack-tool.sh" caddy caddy ;;
  # The load generator of the benchmarks.
  wrk) command -v wrk >/dev/null || exec "$here/install.sh" wrk ;;
  # libfaketime, for the tests with wrong clocks.
  faketime)
    [ -n "$(ls /usr/lib/*/faketime/libfaketime.so.1 /usr/lib/faketime/libfaketime.so.1 2>/dev/null)" ] ||
      exec "$here/install.sh" faketime
    ;;
esac
