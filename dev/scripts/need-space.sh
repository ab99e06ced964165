#!/bin/sh
# Checks that a disk has enough free space, because a full one ends builds and tests with errors that do not name it:
#   need-space.sh <GB> <folder> <what needs it> <how to use another disk>
set -eu
folder=$2
while [ ! -d "$folder" ]; do folder=$(dirname -- "$folder"); done
free=$(df -Pk -- "$folder" | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
[ "$free" -ge "$1" ] || {
  echo "$3 needs about $1 GB in $2, where ${free:-0} GB are free. Free some space, or $4." >&2
  exit 69
}
