#!/usr/bin/env python3
"""A small client of purse, of Python's standard library alone (3.9 or later).

It shows the three things that a client of purse has to do right:

* wait for the wallet after a registration (`wait_for_wallet`),
* send a credit or a debit again under the same key until it is answered (`post`),
* follow the pages of the history (`history`).

Run it against a running purse, and it walks through all three:

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

# How long to go on trying, in seconds.
PATIENCE_S = 60
# Longest wait for one answer; the server waits for a wallet up to 10 seconds when it is asked to.
TIMEOUT_S = 20


class Refused(Exception):
    """An answer that trying again will not change."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body.get('code')}: {body.get('message')}")
        self.status, self.code, self.details = status, body.get("code"), body.get("details", [])


class Purse:
    def __init__(self, users, wallet):
        self.users, self.wallet, self.token = users, wallet, None

    def register(self, first_name, last_name, email, password):
        """Registers and keeps the token. A registration whose answer was lost is found by logging in."""
        person = {"firstName": first_name, "lastName": last_name, "email": email, "password": password}
        try:
            answer = self._send("POST", f"{self.users}/v1/auth/register", person)
            self.token = answer["accessToken"]
        except Refused as refused:
            if refused.code != "EMAIL_EXISTS":
                raise
            self.log_in(email, password)

    def log_in(self, email, password):
        answer = self._send("POST", f"{self.users}/v1/auth/login", {"email": email, "password": password})
        self.token = answer["accessToken"]

    def wait_for_wallet(self):
        """The wallet is made a moment after the registration; until then the answer is 503, which `_send` waits out."""
        return self._send("GET", f"{self.wallet}/v1/wallet/status?wait=10")

    def post(self, kind, amount_minor, description=None):
        """Credits or debits. The key belongs to this one intent and is the same in each try, so it happens once."""
        body = {"amountMinor": amount_minor, "description": description}
        return self._send("POST", f"{self.wallet}/v1/transactions/{kind}", body, key=str(uuid.uuid4()))

    def balance(self):
        return self._send("GET", f"{self.wallet}/v1/balance")["balanceMinor"]

    def history(self, limit=100):
        """Every transaction, newest first, page by page. What is posted meanwhile does not shift the pages."""
        cursor = None
        while True:
            query = {"limit": limit, **({"cursor": cursor} if cursor else {})}
            page = self._send("GET", f"{self.wallet}/v1/transactions?{urllib.parse.urlencode(query)}")
            yield from page["items"]
            cursor = page["nextCursor"]
            if cursor is None:
                return

    def _send(self, method, url, body=None, key=None):
        """Sends until there is an answer that counts: 429 and 503 say when to come back, a broken connection does not."""
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
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as answer:
                refused = Refused(answer.code, json.load(answer))
                if answer.code not in (429, 503):
                    raise refused from None
                wait_s = float(answer.headers["Retry-After"])
            except (OSError, http.client.HTTPException) as broken:
                # Whether the request arrived is not known. Each request of this client may be sent again: reads change
                # nothing, posts have a key, and a second registration is refused.
                refused, wait_s = broken, pause_s
                pause_s = min(pause_s * 2, 5)
            # A little later than asked for, and not all clients at once.
            wait_s += random.uniform(0, 0.2)
            if time.monotonic() + wait_s > give_up_at:
                raise refused
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
    except Refused as refused:
        print(f"as expected: {refused}", file=sys.stderr)
    history = list(purse.history(limit=2))
    print(json.dumps({"balanceMinor": purse.balance(), "amounts": [entry["amountMinor"] for entry in history]}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
