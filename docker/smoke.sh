#!/bin/sh
# Walks through a running stack as a client would, and fails with a sentence at the first answer that is not what the
# API promises: register, log in, wait for the wallet, credit, debit, read the balance. Needs curl and nothing else.
set -eu

users=${USERS_URL:-http://localhost:3002}
wallet=${WALLET_URL:-http://localhost:3001}
email=smoke-$(date +%s)-$$@example.com
password='correct horse battery'
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

fail() {
  echo "smoke: $1" >&2
  exit 1
}

# check <what this is> <expected status> <text that the body must hold> <arguments for curl…>: the body goes to $answer.
check() {
  what=$1 expected=$2 text=$3
  shift 3
  status=$(curl --silent --max-time 40 --output "$answer" --write-out '%{http_code}' \
    --header 'content-type: application/json' "$@") ||
    fail "$what: no answer from $users or $wallet. Is the stack up? (just compose-up)"
  [ "$status" = "$expected" ] || fail "$what: answered with $status instead of $expected: $(cat "$answer")"
  grep -qF "$text" "$answer" || fail "$what: the answer lacks $text: $(cat "$answer")"
  echo "ok  $what"
}

check 'registration' 201 "\"email\":\"$email\"" "$users/v1/auth/register" \
  --data "{\"firstName\":\"Smoke\",\"lastName\":\"Test\",\"email\":\"$email\",\"password\":\"$password\"}"
check 'login' 200 '"tokenType":"Bearer"' "$users/v1/auth/login" \
  --data "{\"email\":\"$email\",\"password\":\"$password\"}"
token=$(sed -n 's/.*"accessToken":"\([^"]*\)".*/\1/p' "$answer")
[ -n "$token" ] || fail "login: the answer has no access token: $(cat "$answer")"

as_user() {
  check "$@" --header "authorization: Bearer $token"
}

as_user 'profile' 200 "\"email\":\"$email\"" "$users/v1/users/me"
as_user 'the wallet is ready' 200 '"status":"ready"' "$wallet/v1/wallet/status?wait=30"
as_user 'a credit of 10.00' 201 '"balanceAfterMinor":1000' "$wallet/v1/transactions/credit" \
  --data '{"amountMinor":1000,"description":"salary"}'
as_user 'a debit of 2.50' 201 '"balanceAfterMinor":750' "$wallet/v1/transactions/debit" --data '{"amountMinor":250}'
as_user 'a debit of more than there is' 409 '"code":"INSUFFICIENT_FUNDS"' "$wallet/v1/transactions/debit" \
  --data '{"amountMinor":751}'
as_user 'the balance' 200 '{"balanceMinor":750,"currency":"USD"}' "$wallet/v1/balance"

echo "The stack works: $email has a balance of 7.50."
