#!/bin/sh
# Previews the next version and its section of the changelog.
set -eu
cliff=$(dirname -- "$0")/cliff.sh
last=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || true)
next=$("$cliff" --bumped-version)
if [ "$next" = "$last" ]; then
  echo "changelog: no commit since $last is visible to users."
else
  echo "next version: $next"
  "$cliff" --unreleased --bump --strip header
fi
