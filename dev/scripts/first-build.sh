#!/bin/sh
# Says how long a first build takes, before cargo starts:
#   first-build.sh <profile's folder> <minutes on two cores> [<purpose>]
set -eu
[ ! -d "$CARGO_TARGET_DIR/$1/deps" ] || exit 0
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
echo "First build${3:+ $3}: cargo downloads and compiles every dependency, which takes about $2 minutes on two cores" \
  "(this machine has $cores). Later builds take at most a minute or two: $CARGO_TARGET_DIR keeps the results."
