#!/bin/sh
# Checks the arguments of a recipe before anything is installed or built: check-argument.sh <what> <values>
set -euf
what=$1 values=$2

fail() {
  echo "$what: $1" >&2
  exit 64
}

case $what in
  parts) known=$(sed -n 's/^const PARTS.*= \[\(.*\)\];$/\1/p' benches/suite/main.rs | tr -d '",') ;;
  versions) known='installed 16 17 18' ;;
  target) known=$(set +f && cd fuzz/corpus && echo *) ;;
  *)
    case $values in
      '' | 0* | *[!0-9]*) fail "\`$values\` is not a whole number above 0" ;;
    esac
    exit 0
    ;;
esac
for value in $values; do
  case " $known " in
    *" $value "*) ;;
    *) fail "there is no \`$value\`; choose from: ${known% }" ;;
  esac
done
