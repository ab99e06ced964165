#!/bin/sh
# Lints the three OpenAPI documents with redocly and spectral: lint-openapi.sh <purse> [--or-skip]
#
# Any error or warning fails. Both tools come from npm; with --or-skip the check is skipped where npm cannot be reached.
set -eu
purse=$1
for tool in redocly spectral; do
  "$(dirname -- "$0")/fetch-tool.sh" "$tool" || {
    [ "${2:-}" = --or-skip ] || exit 69
    echo "lint-openapi: SKIPPED: $tool could not be fetched from npm, so the OpenAPI documents were not linted" >&2
    exit 0
  }
done

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
# Nothing about this run is reported to the vendor.
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true
echo 'extends: spectral:oas' >"$folder/ruleset.yaml"
failed=0
for role in users wallet all; do
  document=$folder/$role.json
  "$purse" openapi --role "$role" >"$document"
  # redocly does not fail on warnings, so its totals decide.
  redocly lint --extends recommended --format json "$document" >"$folder/report" 2>"$folder/log" || true
  if ! grep -Eq '"errors": *0' "$folder/report" || ! grep -Eq '"warnings": *0' "$folder/report"; then
    cat "$folder/log" "$folder/report"
    failed=1
  fi
  spectral lint --ruleset "$folder/ruleset.yaml" --fail-severity hint "$document" >"$folder/report" 2>&1 || {
    cat "$folder/report"
    failed=1
  }
done
[ "$failed" = 0 ] || exit 1
echo "lint-openapi: redocly and spectral have no errors or warnings about the documents of users, wallet and both"
