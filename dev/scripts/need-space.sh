#!/bin/sh
# Checks that a disk has enough free space, because a full one ends builds and tests with errors that do not name it:
#   need-space.sh <GB> <folder> <what needs it> <how to use another disk>
set -eu
folder=$2
while [ ! -d "$folder" ]; do folder=$(dirname -- "$folder"); done
# The name of a file system may have spaces; its free space is in front of the percentage.
free=$(df -Pk -- "$folder" | awk 'NR == 2 { for (i = 2; i <= NF; i++) if ($i ~ /^[0-9]+%$/) { print int($(i - 1) / 1024 / 1024); exit } }')
[ -n "$free" ] || exit 0
[ "$free" -ge "$1" ] || {
  echo "$3 needs about $1 GB in $2, where $free GB are free. Free some space, or $4." >&2
  exit 69
}
