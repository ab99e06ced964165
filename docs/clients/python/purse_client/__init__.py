"""A client of purse, accounts and wallets as a service."""

from .client import Purse
from .errors import ApiError, NoResponseError, PurseError

__all__ = ["ApiError", "NoResponseError", "Purse", "PurseError"]
