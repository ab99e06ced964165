"""The client."""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Dict, Iterator, Literal, Mapping, Optional, cast

from .api import (
    OPERATIONS,
    Balance,
    RegistrationResult,
    Token,
    Transaction,
    TransactionPage,
    TransactionType,
    User,
    WalletStatus,
)
from .errors import ApiError, NoResponseError, PurseError

# Responses with these codes were sent before anything was changed.
_NOTHING_CHANGED = {"RATE_LIMITED", "REQUEST_TIMEOUT", "WALLET_PROVISIONING", "DEPENDENCY_UNAVAILABLE", "OVERLOADED"}
# Statuses after which another attempt may succeed; those of a gateway are included.
_MAY_PASS = {408, 429, 502, 503, 504}
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
# Longest time that the server is asked to wait for a wallet.
_LONGEST_WAIT_S = 10


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would send the token to wherever it points."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Purse:
    """A client of both roles, for one user. Methods are named after the operations of the OpenAPI document.

    `users` and `wallet` are the base URLs of the roles. An attempt takes at most `timeout` seconds. A call is
    retried for `retry_for` seconds; no attempt starts later, and none is cut short. With 0 there is one attempt.

    A post has an `idempotency_key`, which names the intent: create it when the user decides, store it, and use it
    for every attempt, also after a restart. With None, a call whose outcome is unknown is not retried.
    """

    def __init__(
        self,
        users: str,
        wallet: str,
        *,
        access_token: Optional[str] = None,
        timeout: float = 20,
        retry_for: float = 60,
    ) -> None:
        self._urls = {"users": users.rstrip("/"), "wallet": wallet.rstrip("/")}
        # Sent with every request. Set by `register_user` and `login`.
        self.access_token = access_token
        self.timeout = timeout
        self.retry_for = retry_for
        self._opener = urllib.request.build_opener(_NoRedirect)

    def register_user(
        self, *, first_name: str, last_name: str, email: str, password: str, idempotency_key: Optional[str]
    ) -> RegistrationResult:
        """Registers a user and stores the token.

        The key must be random, because all clients share the keys of registrations.
        """
        body = {"firstName": first_name, "lastName": last_name, "email": email, "password": password}
        result = cast(RegistrationResult, self._send("registerUser", body=body, idempotency_key=idempotency_key))
        self.access_token = result["accessToken"]
        return result

    def login(self, *, email: str, password: str) -> Token:
        """Logs in and stores the token."""
        body = {"email": email, "password": password}
        token = cast(Token, self._send("login", body=body, repeatable=True))
        self.access_token = token["accessToken"]
        return token

    def get_current_user(self) -> User:
        return cast(User, self._send("getCurrentUser"))

    def wait_for_wallet(self) -> WalletStatus:
        """Waits until the wallet exists: it is created shortly after the registration."""
        # The server responds before this attempt times out. While there is no wallet it returns 503, which is retried.
        return self.get_wallet_status(wait=min(_LONGEST_WAIT_S, int(self.timeout / 2)))

    def get_wallet_status(self, *, wait: Optional[int] = None) -> WalletStatus:
        return cast(WalletStatus, self._send("getWalletStatus", query={"wait": wait}))

    def get_balance(self, *, at: Optional[str] = None) -> Balance:
        return cast(Balance, self._send("getBalance", query={"at": at}))

    def credit_wallet(
        self, amount_minor: int, *, description: Optional[str] = None, idempotency_key: Optional[str]
    ) -> Transaction:
        body = {"amountMinor": amount_minor, "description": description}
        return cast(Transaction, self._send("creditWallet", body=body, idempotency_key=idempotency_key))

    def debit_wallet(
        self, amount_minor: int, *, description: Optional[str] = None, idempotency_key: Optional[str]
    ) -> Transaction:
        body = {"amountMinor": amount_minor, "description": description}
        return cast(Transaction, self._send("debitWallet", body=body, idempotency_key=idempotency_key))

    def create_transaction(
        self,
        type: Literal["credit", "debit"],
        amount_minor: int,
        *,
        description: Optional[str] = None,
        idempotency_key: Optional[str],
    ) -> Transaction:
        body = {"type": type, "amountMinor": amount_minor, "description": description}
        return cast(Transaction, self._send("createTransaction", body=body, idempotency_key=idempotency_key))

    def get_transaction(self, id: str) -> Transaction:
        return cast(Transaction, self._send("getTransaction", path={"id": id}))

    def list_transactions(
        self,
        *,
        limit: Optional[int] = None,
        cursor: Optional[str] = None,
        type: Optional[TransactionType] = None,
        from_: Optional[str] = None,
        to: Optional[str] = None,
    ) -> TransactionPage:
        """One page. `transactions` follows the pages by itself."""
        query = {"limit": limit, "cursor": cursor, "type": type, "from": from_, "to": to}
        return cast(TransactionPage, self._send("listTransactions", query=query))

    def transactions(
        self,
        *,
        limit: Optional[int] = None,
        type: Optional[TransactionType] = None,
        from_: Optional[str] = None,
        to: Optional[str] = None,
    ) -> Iterator[Transaction]:
        """Every transaction, newest first. The next page is fetched when it is needed; `limit` is the size of a page."""
        cursor: Optional[str] = None
        while True:
            page = self.list_transactions(limit=limit, cursor=cursor, type=type, from_=from_, to=to)
            yield from page["items"]
            cursor = page["nextCursor"]
            if cursor is None:
                return

    def _send(
        self,
        operation: str,
        *,
        path: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, object]] = None,
        body: Optional[Mapping[str, object]] = None,
        idempotency_key: Optional[str] = None,
        repeatable: bool = False,
    ) -> Dict[str, Any]:
        """Sends a request, and again where another attempt may succeed and can do no harm.

        `repeatable`: repeating the request does no harm. That is also true for GET, and with an idempotency key.
        """
        role, method, template = OPERATIONS[operation]
        url = self._urls[role] + template.format(**{k: urllib.parse.quote(v, safe="") for k, v in (path or {}).items()})
        given = {name: value for name, value in (query or {}).items() if value is not None}
        if given:
            url += "?" + urllib.parse.urlencode(given)
        headers = {"Accept": "application/json"}
        if self.access_token:
            headers["Authorization"] = f"Bearer {self.access_token}"
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=headers, method=method)

        safe = repeatable or method == "GET" or idempotency_key is not None
        give_up_at = time.monotonic() + self.retry_for
        attempt = 0
        while True:
            try:
                return self._attempt(request)
            except PurseError as failed:
                error = failed
            pause = _pause_before_retry(error, safe, attempt)
            if pause is None or time.monotonic() + pause > give_up_at:
                raise error
            time.sleep(pause)
            attempt += 1

    def _attempt(self, request: urllib.request.Request) -> Dict[str, Any]:
        end = time.monotonic() + self.timeout
        try:
            try:
                response = self._opener.open(request, timeout=self.timeout)
            except urllib.error.HTTPError as error_response:
                response = error_response
            with response:
                content = _parsed(_read(response, end))
                status, headers = response.status, response.headers
        except (OSError, http.client.HTTPException) as cause:
            raise NoResponseError(f"{request.method} {request.selector}: no response") from cause
        if 200 <= status < 300 and content is not None:
            return content
        raise ApiError(status, content, headers)


def _read(response: Any, end: float) -> bytes:
    """The body. The timeout of a connection is for each read, so a body that never ends needs an end of its own."""
    parts = []
    while part := response.read1(65536):
        if time.monotonic() > end:
            raise TimeoutError("the response did not end in time")
        parts.append(part)
    return b"".join(parts)


def _parsed(text: bytes) -> Optional[Dict[str, Any]]:
    """The JSON object in a text; None if it is anything else."""
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _changed_nothing(error: PurseError) -> bool:
    return isinstance(error, ApiError) and (error.status == 429 or error.code in _NOTHING_CHANGED)


def _pause_before_retry(error: PurseError, safe: bool, attempt: int) -> Optional[float]:
    """Seconds; None if the request must not be sent again."""
    if isinstance(error, ApiError) and error.status not in _MAY_PASS:
        return None
    if not safe and not _changed_nothing(error):
        return None
    after = error.retry_after if isinstance(error, ApiError) else None
    pause: float = min(_FIRST_PAUSE_S * 2 ** min(attempt, 10), _LONGEST_PAUSE_S)
    # Jitter, so that clients do not all retry at once.
    if after is None:
        return pause * random.uniform(0.5, 1)
    return after + random.uniform(0, max(_FIRST_PAUSE_S, after / 4))
