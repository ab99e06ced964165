#!/bin/sh
# Packs the clients of docs/clients: clients.sh <folder>
#
# The folder then has an npm package, a wheel and a source distribution. Types are checked by tsc and mypy.
set -eu
folder=$1
here=$(dirname -- "$0")
root=$(CDPATH='' cd -- "$here/../.." && pwd)
tools=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/purse/tools
for tool in tsc flit mypy; do
  "$here/fetch-tool.sh" "$tool"
done
mkdir -p "$folder"
folder=$(CDPATH='' cd -- "$folder" && pwd)

# Nothing is built inside the checkout.
draft=$(mktemp -d)
trap 'rm -rf "$draft"' EXIT
trap 'exit 130' INT TERM
cp -R "$root/docs/clients/typescript" "$root/docs/clients/python" "$draft"
cp "$root/LICENSE" "$draft/typescript"
cp "$root/LICENSE" "$draft/python"

cd "$draft/typescript"
PATH=$PATH:$tools/bin tsc --project .
npm pack --silent --pack-destination "$folder" >/dev/null

cd "$draft/python"
PYTHONPATH=$tools/mypy python3 -m mypy --strict --no-error-summary --cache-dir "$draft/mypy" purse_client example.py
PYTHONPATH=$tools/flit python3 -c '
import sys
from flit_core import buildapi

buildapi.build_wheel(sys.argv[1])
buildapi.build_sdist(sys.argv[1])' "$folder"
echo "clients: packed into $folder:$(cd "$folder" && printf ' %s' *)"
