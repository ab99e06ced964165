#!/bin/sh
# Checks the dependencies against RustSec's database of known vulnerabilities.
set -eu
limit='timeout 120'
# macOS has no timeout.
command -v timeout >/dev/null || limit=
# Fetched on its own first, so that an unreachable database is not reported as a vulnerability.
if ! GIT_TERMINAL_PROMPT=0 $limit cargo deny --locked --log-level off fetch db; then
  echo "advisories: the database is unreachable, so nothing was checked. Run this where the network allows it." >&2
  exit 69
fi
exec cargo deny --offline --locked check --hide-inclusion-graph advisories
