"""What users and services do with a wallet."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, Literal, Mapping, NamedTuple, Optional, Tuple, TypeVar, cast

from .api import (
    Balance,
    Capture,
    Hold,
    HoldPage,
    Transaction,
    TransactionPage,
    TransactionType,
)
from .transport import Transport

_Page = TypeVar("_Page", TransactionPage, HoldPage)


class Statement(NamedTuple):
    """A statement as a file."""

    # CSV or NDJSON.
    text: str
    # Balance at the start of the period, in US cents.
    opening_minor: int
    # Balance at the end of the period, in US cents.
    closing_minor: int
    # Whether a later request returns the same.
    is_final: bool


class Wallet:
    """A wallet. Methods are named after the operations of the OpenAPI document."""

    def __init__(self, transport: Transport, user_id: Optional[str]) -> None:
        """`user_id`: the owner of the wallet for a service; None for the owner of the access token."""
        self._transport = transport
        self._user_id = user_id

    def get_balance(self, *, at: Optional[str] = None) -> Balance:
        return cast(Balance, self._send("getBalance", query={"at": at}))

    def credit_wallet(
        self,
        amount_minor: int,
        *,
        description: Optional[str] = None,
        reference: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        idempotency_key: Optional[str],
    ) -> Transaction:
        body = {"amountMinor": amount_minor, **_texts(description, reference, metadata)}
        return cast(Transaction, self._send("creditWallet", body=body, idempotency_key=idempotency_key))

    def debit_wallet(
        self,
        amount_minor: int,
        *,
        description: Optional[str] = None,
        reference: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        idempotency_key: Optional[str],
    ) -> Transaction:
        body = {"amountMinor": amount_minor, **_texts(description, reference, metadata)}
        return cast(Transaction, self._send("debitWallet", body=body, idempotency_key=idempotency_key))

    def create_transaction(
        self,
        type: Literal["credit", "debit"],
        amount_minor: int,
        *,
        description: Optional[str] = None,
        reference: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        idempotency_key: Optional[str],
    ) -> Transaction:
        body = {"type": type, "amountMinor": amount_minor, **_texts(description, reference, metadata)}
        return cast(Transaction, self._send("createTransaction", body=body, idempotency_key=idempotency_key))

    def reverse_transaction(
        self,
        id: str,
        amount_minor: Optional[int] = None,
        *,
        description: Optional[str] = None,
        reference: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        idempotency_key: Optional[str],
    ) -> Transaction:
        """Undoes a transaction, or a part of it."""
        body = {"amountMinor": amount_minor, **_texts(description, reference, metadata)}
        return cast(
            Transaction,
            self._send("reverseTransaction", path={"id": id}, body=body, idempotency_key=idempotency_key),
        )

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
        reference: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
    ) -> TransactionPage:
        """One page. `transactions` follows the pages by itself. `metadata`: at most three pairs, all of which match."""
        query = {"limit": limit, "cursor": cursor, "type": type, "from": from_, "to": to, "reference": reference}
        pairs = {f"metadata.{key}": value for key, value in (metadata or {}).items()}
        return cast(TransactionPage, self._send("listTransactions", query={**query, **pairs}))

    def transactions(
        self,
        *,
        limit: Optional[int] = None,
        type: Optional[TransactionType] = None,
        from_: Optional[str] = None,
        to: Optional[str] = None,
        reference: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
    ) -> Iterator[Transaction]:
        """Every transaction, newest first. The next page is fetched when it is needed; `limit` is the size of a page."""
        for page in _pages(
            lambda cursor: self.list_transactions(
                limit=limit, cursor=cursor, type=type, from_=from_, to=to, reference=reference, metadata=metadata
            )
        ):
            yield from page["items"]

    def get_statement(
        self,
        *,
        from_: str,
        to: str,
        format: Optional[Literal["csv", "ndjson"]] = None,
        bom: Optional[bool] = None,
    ) -> Statement:
        """All transactions of a period. A long one may need a longer `timeout`."""
        query = {"from": from_, "to": to, "format": format, "bom": bom}
        operation, path = self._addressed("getStatement", None)
        # Errors are JSON.
        accept = "text/csv, application/x-ndjson, application/json"
        text, headers = self._transport.send_for_text(operation, path=path, query=query, accept=accept)
        return Statement(
            text=text.decode(),
            opening_minor=int(headers["statement-opening-minor"]),
            closing_minor=int(headers["statement-closing-minor"]),
            is_final=headers["statement-final"] == "true",
        )

    def create_transfer(
        self,
        to_user_id: str,
        amount_minor: int,
        *,
        description: Optional[str] = None,
        reference: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        idempotency_key: Optional[str],
    ) -> Transaction:
        """Debits this wallet and credits that of another user, both or neither."""
        body = {"toUserId": to_user_id, "amountMinor": amount_minor, **_texts(description, reference, metadata)}
        return cast(Transaction, self._send("createTransfer", body=body, idempotency_key=idempotency_key))

    def get_transfer(self, id: str) -> Transaction:
        return cast(Transaction, self._send("getTransfer", path={"id": id}))

    def create_hold(
        self,
        amount_minor: int,
        *,
        expires_in_s: Optional[int] = None,
        description: Optional[str] = None,
        reference: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        idempotency_key: Optional[str],
    ) -> Hold:
        """Reserves a part of the balance."""
        body = {
            "amountMinor": amount_minor,
            "expiresInS": expires_in_s,
            **_texts(description, reference, metadata),
        }
        return cast(Hold, self._send("createHold", body=body, idempotency_key=idempotency_key))

    def capture_hold(
        self,
        id: str,
        amount_minor: Optional[int] = None,
        *,
        final: Optional[bool] = None,
        description: Optional[str] = None,
        reference: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        idempotency_key: Optional[str],
    ) -> Capture:
        """Debits all of a hold or a part of it, and releases the rest unless `final` is False."""
        body = {"amountMinor": amount_minor, "final": final, **_texts(description, reference, metadata)}
        return cast(
            Capture, self._send("captureHold", path={"id": id}, body=body, idempotency_key=idempotency_key)
        )

    def void_hold(self, id: str, *, idempotency_key: Optional[str]) -> Hold:
        """Releases a hold."""
        return cast(Hold, self._send("voidHold", path={"id": id}, body={}, idempotency_key=idempotency_key))

    def get_hold(self, id: str) -> Hold:
        return cast(Hold, self._send("getHold", path={"id": id}))

    def list_holds(
        self,
        *,
        status: Optional[Literal["open", "all"]] = None,
        limit: Optional[int] = None,
        cursor: Optional[str] = None,
    ) -> HoldPage:
        """One page. `holds` follows the pages by itself."""
        return cast(HoldPage, self._send("listHolds", query={"status": status, "limit": limit, "cursor": cursor}))

    def holds(
        self, *, status: Optional[Literal["open", "all"]] = None, limit: Optional[int] = None
    ) -> Iterator[Hold]:
        """Every open hold, or with the status `all` every hold, newest first. `limit` is the size of a page."""
        for page in _pages(lambda cursor: self.list_holds(status=status, limit=limit, cursor=cursor)):
            yield from page["items"]

    def _send(
        self,
        operation: str,
        *,
        path: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, object]] = None,
        body: Optional[Mapping[str, object]] = None,
        idempotency_key: Optional[str] = None,
    ) -> Dict[str, Any]:
        operation, path = self._addressed(operation, path)
        return self._transport.send(operation, path=path, query=query, body=body, idempotency_key=idempotency_key)

    def _addressed(
        self, operation: str, path: Optional[Mapping[str, str]]
    ) -> Tuple[str, Optional[Mapping[str, str]]]:
        """The operation and path parameters for the owner of this wallet."""
        if self._user_id is None:
            return operation, path
        return f"{operation}ForUser", {**(path or {}), "userId": self._user_id}


def _texts(
    description: Optional[str], reference: Optional[str], metadata: Optional[Mapping[str, str]]
) -> Dict[str, object]:
    return {"description": description, "reference": reference, "metadata": metadata}


def _pages(list_page: Callable[[Optional[str]], _Page]) -> Iterator[_Page]:
    cursor: Optional[str] = None
    while True:
        page = list_page(cursor)
        yield page
        cursor = page["nextCursor"]
        if cursor is None:
            return
