"""How requests are sent."""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Dict, Mapping, Optional, Tuple

from .api import OPERATIONS
from .errors import ApiError, NoResponseError, PurseError

# Responses with these codes were sent before anything was changed.
_NOTHING_CHANGED = {"RATE_LIMITED", "REQUEST_TIMEOUT", "WALLET_PROVISIONING", "DEPENDENCY_UNAVAILABLE", "OVERLOADED"}
# Statuses after which another attempt may succeed; those of a gateway are included.
_MAY_PASS = {408, 429, 502, 503, 504}
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would send the token to wherever it points."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Transport:
    """Sends requests with a token."""

    def __init__(self, urls: Mapping[str, str], token: Optional[str], *, timeout: float, retry_for: float) -> None:
        self._urls = {role: url.rstrip("/") for role, url in urls.items()}
        self.token = token
        self.timeout = timeout
        self.retry_for = retry_for
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(
        self,
        operation: str,
        *,
        path: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, object]] = None,
        body: Optional[Mapping[str, object]] = None,
        idempotency_key: Optional[str] = None,
        repeatable: bool = False,
    ) -> Dict[str, Any]:
        """The JSON object in the response."""
        text, _ = self.send_for_text(
            operation, path=path, query=query, body=body, idempotency_key=idempotency_key, repeatable=repeatable
        )
        content: Dict[str, Any] = json.loads(text)
        return content

    def send_for_text(
        self,
        operation: str,
        *,
        path: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, object]] = None,
        body: Optional[Mapping[str, object]] = None,
        idempotency_key: Optional[str] = None,
        repeatable: bool = False,
        accept: Optional[str] = None,
    ) -> Tuple[bytes, Mapping[str, str]]:
        """Sends a request, and again where another attempt may succeed and can do no harm.

        `repeatable`: repeating the request does no harm. That is also true for GET, and with an idempotency key.
        `accept`: the media types of a response that is no JSON object.
        """
        role, method, template = OPERATIONS[operation]
        url = self._urls[role] + template.format(**{k: urllib.parse.quote(v, safe="") for k, v in (path or {}).items()})
        given = {name: _parameter(value) for name, value in (query or {}).items() if value is not None}
        if given:
            url += "?" + urllib.parse.urlencode(given)
        headers = {"Accept": accept or "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
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
                return self._attempt(request, is_json=accept is None)
            except PurseError as failed:
                error = failed
            pause = _pause_before_retry(error, safe, attempt)
            if pause is None or time.monotonic() + pause > give_up_at:
                raise error
            time.sleep(pause)
            attempt += 1

    def _attempt(self, request: urllib.request.Request, *, is_json: bool) -> Tuple[bytes, Mapping[str, str]]:
        end = time.monotonic() + self.timeout
        try:
            try:
                response = self._opener.open(request, timeout=self.timeout)
            except urllib.error.HTTPError as error_response:
                response = error_response
            with response:
                text = _read(response, end)
                status, headers = response.status, response.headers
        except (OSError, http.client.HTTPException) as cause:
            raise NoResponseError(f"{request.method} {request.selector}: no response") from cause
        content = _parsed(text)
        if 200 <= status < 300 and (content is not None or not is_json):
            return text, headers
        raise ApiError(status, content, headers)


def _parameter(value: object) -> str:
    """As JSON has it: `true`, not `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


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
