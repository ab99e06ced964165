"""How a call may fail."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any, List, Mapping, Optional

from .api import ErrorDetail


class PurseError(Exception):
    """Any failure of a call."""


class NoResponseError(PurseError):
    """No complete response arrived: the connection failed, or the time was over.

    A post may or may not have taken effect.
    """


class ApiError(PurseError):
    """An error response."""

    def __init__(self, status: int, body: Optional[Mapping[str, Any]], headers: Mapping[str, str]) -> None:
        body = body or {}
        self.status = status
        # One of `purse_client.api.ErrorCode`, or a code of a later version. `UNEXPECTED_RESPONSE`: not from purse, for
        # example from a proxy.
        self.code: str = body.get("code", "UNEXPECTED_RESPONSE")
        # Each invalid field of a request with `VALIDATION_ERROR`; otherwise empty.
        self.details: List[ErrorDetail] = body.get("details", [])
        # Quote it when you report a problem.
        self.request_id = headers.get("x-request-id")
        self._retry_after = headers.get("retry-after")
        message = f"{status} {self.code}"
        super().__init__(f"{message}: {body['message']}" if "message" in body else message)

    @property
    def retry_after(self) -> Optional[float]:
        """How long to wait before another attempt, in seconds, if the response says so."""
        if self._retry_after is None:
            return None
        # Seconds, or from a proxy perhaps a date.
        if self._retry_after.isdecimal():
            return float(self._retry_after)
        try:
            return max(0.0, parsedate_to_datetime(self._retry_after).timestamp() - time.time())
        except (TypeError, ValueError):
            return None
