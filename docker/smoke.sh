#!/bin/sh
# Smoke test of a running stack, as a client: registers, logs in, waits for the wallet, credits, debits, and reads the
# balance. Stops with a message at the first response that differs from the API reference. Needs only curl.
set -eu

users=${USERS_URL:-http://localhost:3002}
wallet=${WALLET_URL:-http://localhost:3001}
email=smoke-$(date +%s)-$$@example.com
password='correct horse battery'
response=$(mktemp)
trap 'rm -f "$response"' EXIT

fail() {
  echo "smoke: $1" >&2
  exit 1
}

# check <step> <expected status> <text that the body must contain> <curl arguments…>: writes the body to $response.
check() {
  step=$1 expected=$2 text=$3
  shift 3
  status=$(curl --silent --max-time 40 --output "$response" --write-out '%{http_code}' \
    --header 'content-type: application/json' "$@") ||
    fail "$step: no response from $users or $wallet. Is the stack up? (./justw compose-up)"
  [ "$status" = "$expected" ] || fail "$step: status $status instead of $expected: $(cat "$response")"
  grep -qF "$text" "$response" || fail "$step: the response does not contain $text: $(cat "$response")"
  echo "ok  $step"
}

check 'registration' 201 "\"email\":\"$email\"" "$users/v1/auth/register" \
  --data "{\"firstName\":\"Smoke\",\"lastName\":\"Test\",\"email\":\"$email\",\"password\":\"$password\"}"
check 'login' 200 '"tokenType":"Bearer"' "$users/v1/auth/login" \
  --data "{\"email\":\"$email\",\"password\":\"$password\"}"
token=$(sed -n 's/.*"accessToken":"\([^"]*\)".*/\1/p' "$response")
[ -n "$token" ] || fail "login: the response contains no access token: $(cat "$response")"

as_user() {
  check "$@" --header "authorization: Bearer $token"
}

as_user 'profile' 200 "\"email\":\"$email\"" "$users/v1/users/me"
as_user 'wait for the wallet' 200 '"status":"ready"' "$wallet/v1/wallet/status?wait=30"
as_user 'credit 10.00' 201 '"balanceAfterMinor":1000' "$wallet/v1/transactions/credit" \
  --data '{"amountMinor":1000,"description":"salary"}'
as_user 'debit 2.50' 201 '"balanceAfterMinor":750' "$wallet/v1/transactions/debit" --data '{"amountMinor":250}'
as_user 'debit more than the balance' 409 '"code":"INSUFFICIENT_FUNDS"' "$wallet/v1/transactions/debit" \
  --data '{"amountMinor":751}'
as_user 'balance' 200 '{"balanceMinor":750,"currency":"USD"}' "$wallet/v1/balance"

echo "The stack works: the balance of $email is 7.50."
