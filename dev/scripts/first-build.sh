#!/bin/sh
# Says how long a first build takes, and checks that there is space for it, before cargo starts:
#   first-build.sh <profile's folder> <minutes on two cores> <GB> [<purpose>]
set -eu
[ ! -d "$CARGO_TARGET_DIR/$1/deps" ] || exit 0
"$(dirname -- "$0")/need-space.sh" "$3" "$CARGO_TARGET_DIR" "The first build" "set CARGO_TARGET_DIR to a folder on another disk"
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
echo "First build${4:+ $4}: cargo downloads and compiles every dependency, which takes about $2 minutes on two cores" \
  "(this machine has $cores). Later builds take at most a minute or two: $CARGO_TARGET_DIR keeps the results."
