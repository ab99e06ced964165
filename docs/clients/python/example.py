"""Registers a user, waits for the wallet, moves money and reads the history: example.py <users URL> <wallet URL>"""

import json
import sys
import uuid
from typing import Dict

from purse_client import ApiError, Purse


def example(users: str, wallet: str) -> Dict[str, object]:
    purse = Purse(users, wallet)
    email = f"ada-{uuid.uuid4()}@example.com"
    ada = {"first_name": "Ada", "last_name": "Lovelace", "email": email, "password": "correct horse battery"}
    purse.register_user(**ada, idempotency_key=str(uuid.uuid4()))
    purse.wait_for_wallet()
    for number in range(1, 6):
        purse.credit_wallet(100 * number, idempotency_key=f"deposit-{number}")
    purse.debit_wallet(400, idempotency_key="coffee")
    rejected = None
    try:
        purse.debit_wallet(1_000_000, idempotency_key="yacht")
    except ApiError as error:
        rejected = error.code
    amounts = [transaction["amountMinor"] for transaction in purse.transactions(limit=2)]
    return {"balanceMinor": purse.get_balance()["balanceMinor"], "amounts": amounts, "rejected": rejected}


if __name__ == "__main__":
    print(json.dumps(example(*sys.argv[1:3])))
