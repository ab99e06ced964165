#!/usr/bin/env python3
"""A small purse client for Python 3.9 or later, without dependencies.

It shows what a purse client has to do:

* wait for the wallet after a registration (`wait_for_wallet`),
* retry credits and debits with the same idempotency key (`post`),
* follow the pages of the history (`history`).

Run it against a running purse to see all three:

    python3 docs/clients/purse_client.py http://localhost:3002 http://localhost:3001
"""

import http.client
import json
import random
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

# How long to keep retrying, in seconds.
PATIENCE_S = 60
# Timeout of one request; longer than the 10 seconds that the server may wait for a wallet.
TIMEOUT_S = 20


class ApiError(Exception):
    """An error response that a retry will not change."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body.get('code')}: {body.get('message')}")
        self.status, self.code, self.details = status, body.get("code"), body.get("details", [])


class Purse:
    def __init__(self, users, wallet):
        self.users, self.wallet, self.token = users, wallet, None

    def register(self, first_name, last_name, email, password):
        """Registers and stores the token. If the response to an earlier attempt was lost, logs in instead."""
        user = {"firstName": first_name, "lastName": last_name, "email": email, "password": password}
        try:
            response = self._send("POST", f"{self.users}/v1/auth/register", user)
            self.token = response["accessToken"]
        except ApiError as error:
            if error.code != "EMAIL_EXISTS":
                raise
            self.log_in(email, password)

    def log_in(self, email, password):
        response = self._send("POST", f"{self.users}/v1/auth/login", {"email": email, "password": password})
        self.token = response["accessToken"]

    def wait_for_wallet(self):
        """The wallet is created shortly after the registration; until then the API returns 503, and `_send` retries."""
        return self._send("GET", f"{self.wallet}/v1/wallet/status?wait=10")

    def post(self, kind, amount_minor, description=None):
        """Credits or debits. All attempts use the same key, so money moves once."""
        body = {"amountMinor": amount_minor, "description": description}
        return self._send("POST", f"{self.wallet}/v1/transactions/{kind}", body, key=str(uuid.uuid4()))

    def balance(self):
        return self._send("GET", f"{self.wallet}/v1/balance")["balanceMinor"]

    def history(self, limit=100):
        """Every transaction, newest first, page by page. New transactions do not shift the pages."""
        cursor = None
        while True:
            query = {"limit": limit, **({"cursor": cursor} if cursor else {})}
            page = self._send("GET", f"{self.wallet}/v1/transactions?{urllib.parse.urlencode(query)}")
            yield from page["items"]
            cursor = page["nextCursor"]
            if cursor is None:
                return

    def _send(self, method, url, body=None, key=None):
        """Sends a request and retries 429, 503 and dropped connections."""
        headers = {"Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key:
            headers["Idempotency-Key"] = key
        sent = json.dumps(body).encode() if body is not None else None
        give_up_at, pause_s = time.monotonic() + PATIENCE_S, 0.2
        while True:
            request = urllib.request.Request(url, data=sent, headers=headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                    return json.load(response)
            except urllib.error.HTTPError as response:
                error = ApiError(response.code, json.load(response))
                if response.code not in (429, 503):
                    raise error from None
                wait_s = float(response.headers["Retry-After"])
            except (OSError, http.client.HTTPException) as dropped:
                # The outcome is unknown. Every request of this client is safe to retry: reads change nothing, posts have
                # a key, and registering twice returns EMAIL_EXISTS.
                error, wait_s = dropped, pause_s
                pause_s = min(pause_s * 2, 5)
            # Jitter, so that clients do not all retry at once.
            wait_s += random.uniform(0, 0.2)
            if time.monotonic() + wait_s > give_up_at:
                raise error
            time.sleep(wait_s)


def main(users, wallet):
    purse = Purse(users, wallet)
    purse.register("Ada", "Lovelace", f"ada-{uuid.uuid4()}@example.com", "correct horse battery")
    purse.wait_for_wallet()
    for number in range(1, 6):
        purse.post("credit", 100 * number, f"deposit {number}")
    purse.post("debit", 400)
    try:
        purse.post("debit", 1_000_000)
    except ApiError as error:
        print(f"as expected: {error}", file=sys.stderr)
    history = list(purse.history(limit=2))
    print(json.dumps({"balanceMinor": purse.balance(), "amounts": [entry["amountMinor"] for entry in history]}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
