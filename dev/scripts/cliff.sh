#!/bin/sh
# Runs git-cliff without network access: cliff.sh <argument>... The web address of `origin`, if it has one, becomes the
# base of the changelog's compare links.
set -eu
remote=$(git remote get-url origin 2>/dev/null || true)
# https://user:token@host/owner/name.git, ssh://git@host:22/owner/name.git and git@host:owner/name.git; never credentials.
PURSE_REPOSITORY_URL=$(printf '%s\n' "$remote" | sed -nE -e 's#/*$##' -e 's#\.git$##' \
  -e 's#^(https?://)([^/@]*@)?([^/]+/.+)$#\1\3#p' \
  -e 's#^ssh://([^/@]*@)?([^/:]+)(:[0-9]+)?/(.+)$#https://\2/\4#p' \
  -e 's#^([^/@:]+@)([^/:]+):/*([^/].*)$#https://\2/\3#p')
export PURSE_REPOSITORY_URL RUST_LOG=error
exec git-cliff --offline "$@"
