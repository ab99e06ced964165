"""The clients of a user and of a service."""

from __future__ import annotations

from typing import Iterator, List, Literal, Optional, Union, cast, overload

from .api import (
    BulkItem,
    BulkResults,
    BulkTransactions,
    ChainedEntry,
    ChainPage,
    LedgerHead,
    Receipt,
    RegistrationResult,
    SigningKeys,
    Token,
    User,
    WalletStatus,
)
from .transport import Transport
from .wallet import Wallet

# Longest time that the server is asked to wait for a wallet.
_LONGEST_WAIT_S = 10


class Purse(Wallet):
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
        urls = {"users": users, "wallet": wallet}
        super().__init__(Transport(urls, access_token, timeout=timeout, retry_for=retry_for), None)

    @property
    def access_token(self) -> Optional[str]:
        """Sent with every request. Set by `register_user` and `login`."""
        return self._transport.token

    @access_token.setter
    def access_token(self, token: Optional[str]) -> None:
        self._transport.token = token

    @property
    def timeout(self) -> float:
        return self._transport.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._transport.timeout = seconds

    @property
    def retry_for(self) -> float:
        return self._transport.retry_for

    @retry_for.setter
    def retry_for(self, seconds: float) -> None:
        self._transport.retry_for = seconds

    def register_user(
        self, *, first_name: str, last_name: str, email: str, password: str, idempotency_key: Optional[str]
    ) -> RegistrationResult:
        """Registers a user and stores the token.

        The key must be random, because all clients share the keys of registrations.
        """
        body = {"firstName": first_name, "lastName": last_name, "email": email, "password": password}
        sent = self._transport.send("registerUser", body=body, idempotency_key=idempotency_key)
        result = cast(RegistrationResult, sent)
        self.access_token = result["accessToken"]
        return result

    def login(self, *, email: str, password: str) -> Token:
        """Logs in and stores the token."""
        body = {"email": email, "password": password}
        token = cast(Token, self._transport.send("login", body=body, repeatable=True))
        self.access_token = token["accessToken"]
        return token

    def get_current_user(self) -> User:
        return cast(User, self._transport.send("getCurrentUser"))

    def wait_for_wallet(self) -> WalletStatus:
        """Waits until the wallet exists: it is created shortly after the registration."""
        # The server responds before this attempt times out. While there is no wallet it returns 503, which is retried.
        return self.get_wallet_status(wait=min(_LONGEST_WAIT_S, int(self._transport.timeout / 2)))

    def get_wallet_status(self, *, wait: Optional[int] = None) -> WalletStatus:
        return cast(WalletStatus, self._transport.send("getWalletStatus", query={"wait": wait}))

    @overload
    def create_transactions(
        self, items: List[BulkItem], *, atomic: Literal[True] = True, idempotency_key: Optional[str]
    ) -> BulkTransactions: ...

    @overload
    def create_transactions(
        self, items: List[BulkItem], *, atomic: Literal[False], idempotency_key: None
    ) -> BulkResults: ...

    def create_transactions(
        self, items: List[BulkItem], *, atomic: bool = True, idempotency_key: Optional[str]
    ) -> Union[BulkTransactions, BulkResults]:
        """Posts several credits and debits: all or nothing, or each on its own, with a result per item.

        If `atomic` is False, each item has an `idempotencyKey` of its own, and that of the request is None.
        """
        body = {"items": items, "atomic": atomic}
        repeatable = not atomic and all(item.get("idempotencyKey") is not None for item in items)
        sent = self._transport.send(
            "createTransactions", body=body, idempotency_key=idempotency_key, repeatable=repeatable
        )
        return cast(Union[BulkTransactions, BulkResults], sent)

    def get_receipt(self, id: str) -> Receipt:
        """A transaction with everything that its hash covers. Verify it offline."""
        return cast(Receipt, self._transport.send("getReceipt", path={"id": id}))

    def get_ledger_head(self) -> LedgerHead:
        """The last hash of the wallet, signed."""
        return cast(LedgerHead, self._transport.send("getLedgerHead"))

    def list_chain(self, *, after: Optional[int] = None, limit: Optional[int] = None) -> ChainPage:
        """One page. `chain` follows the pages by itself."""
        return cast(ChainPage, self._transport.send("listChain", query={"after": after, "limit": limit}))

    def chain(self, *, after: Optional[int] = None, limit: Optional[int] = None) -> Iterator[ChainedEntry]:
        """Every entry of the hash chain after a sequence number, oldest first. `limit` is the size of a page."""
        while True:
            page = self.list_chain(after=after, limit=limit)
            yield from page["items"]
            after = page["nextAfter"]
            if after is None:
                return

    def get_signing_keys(self) -> SigningKeys:
        """The public keys of receipts."""
        return cast(SigningKeys, self._transport.send("getSigningKeys"))


class PurseService:
    """A client of the wallet role for a back end, which acts on behalf of any user.

    `service_token` is from `purse token`, or signed by the service itself. The other arguments are those of `Purse`.
    """

    def __init__(self, wallet: str, *, service_token: str, timeout: float = 20, retry_for: float = 60) -> None:
        # A service uses nothing of the users role.
        urls = {"users": wallet, "wallet": wallet}
        self._transport = Transport(urls, service_token, timeout=timeout, retry_for=retry_for)

    @property
    def service_token(self) -> str:
        """Sent with every request, also of wallets that were returned before. Replace it before it expires."""
        return self._transport.token or ""

    @service_token.setter
    def service_token(self, token: str) -> None:
        self._transport.token = token

    def wallet_of(self, user_id: str) -> Wallet:
        """The wallet of a user, by the user's ID. Sends no request."""
        return Wallet(self._transport, user_id)
