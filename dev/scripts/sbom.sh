#!/bin/sh
# Generates a CycloneDX SBOM, and builds a release binary that embeds the list of its dependencies.
set -eu
purse=$CARGO_TARGET_DIR/release/purse
cargo cyclonedx --quiet --format json --spec-version 1.5 --all-features --target all --override-filename purse-sbom
mkdir -p "$CARGO_TARGET_DIR/sbom"
# One file per workspace member; the development stack is not released.
rm -f dev/purse-sbom.json
mv purse-sbom.json "$CARGO_TARGET_DIR/sbom/purse.cdx.json"
cargo auditable build --release --locked --quiet
grep -aq '\.dep-v0' "$purse" || {
  echo "sbom: the binary does not contain the list of its dependencies" >&2
  exit 70
}
echo "SBOM: $CARGO_TARGET_DIR/sbom/purse.cdx.json"
echo "The binary embeds its own list; to check it, run: cargo audit bin $purse"
