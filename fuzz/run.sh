#!/usr/bin/env bash
# Runs the fuzz targets with coverage guidance: run.sh <seconds for each> [<target>]
set -euo pipefail
built=$CARGO_TARGET_DIR/fuzz
# Without a sanitizer, fuzzing works on stable Rust, and purse has no unsafe code for one to check.
cargo fuzz build --fuzz-dir fuzz --sanitizer none --target-dir "$built"
for name in ${2:-$(ls fuzz/corpus)}; do
  mkdir -p "$built/corpus/$name"
  echo "fuzz: $name, $1 s"
  # New inputs go to the build folder; the corpus in the repository is only read.
  cargo fuzz run --fuzz-dir fuzz --sanitizer none --target-dir "$built" "$name" "$built/corpus/$name" "fuzz/corpus/$name" -- \
    -max_total_time="$1" -max_len=4096 -timeout=5 -print_final_stats=1 -verbosity=0
done
