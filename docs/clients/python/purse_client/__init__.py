"""Clients of purse, accounts and wallets as a service."""

from .client import Purse, PurseService
from .errors import ApiError, NoResponseError, PurseError
from .wallet import Statement, Wallet

__all__ = ["ApiError", "NoResponseError", "Purse", "PurseError", "PurseService", "Statement", "Wallet"]
