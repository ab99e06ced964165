#!/usr/bin/env python3
"""Verifies receipts of purse without purse: an independent implementation of the hash chain.

    receipt.py [--keys KEYS] FILE...

Each FILE is the response of GET /v1/transactions/{id}/receipt, GET /v1/ledger/chain or GET /v1/ledger/head. KEYS is the response
of GET /.well-known/purse-keys.json; to verify signatures, the package `cryptography` has to be installed. Everything else needs
only the standard library (Python 3.9 or later).

Exit codes: 0 everything is consistent; 1 something is wrong, or a FILE cannot be read; 2 KEYS cannot be used, or nothing could be
verified.
"""

import argparse
import base64
import datetime
import hashlib
import json
import re
import sys
import uuid

KINDS = {"credit": 1, "debit": 2, "hold": 3, "void": 4, "expire": 5, "close": 6}
ALWAYS = {"userId", "seq", "id", "type", "amountMinor", "balanceAfterMinor", "heldAfterMinor", "createdAt"}
OPTIONAL = {
    "origin", "transfer", "expiresAt", "idempotencyKey", "requestDigest", "textsDigest", "groupSize", "postedBy",
}  # fmt: skip
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


class Wrong(Exception):
    """The receipt does not prove its entry."""


def require(condition, message):
    if not condition:
        raise Wrong(message)


# --- Values: each has exactly one form, so that nothing is read differently from what was hashed.


def members(value, required, optional=frozenset()):
    require(isinstance(value, dict), "an object is missing")
    require(required <= value.keys() <= required | optional, "fields are missing or unknown")
    return value


def integer(value, size, signed=False):
    require(type(value) is int, "an integer is missing")
    try:
        return value.to_bytes(size, "big", signed=signed)
    except OverflowError:
        raise Wrong("an integer is out of range") from None


def text(value):
    require(isinstance(value, str), "a text is missing")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise Wrong("a text is not valid Unicode") from None


def hexadecimal(value, size):
    require(isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{2 * size}}}", value), f"{size} bytes in hexadecimal are missing")
    return bytes.fromhex(value)


def identifier(value):
    require(isinstance(value, str) and re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value), "a UUID is missing")
    return uuid.UUID(value).bytes


def micros(value):
    require(isinstance(value, str) and TIME.fullmatch(value), "a time with six digits is missing")
    try:
        time = datetime.datetime.fromisoformat(value[:-1] + "+00:00")
    except ValueError:
        raise Wrong("a time is missing") from None
    return integer((time - EPOCH) // datetime.timedelta(microseconds=1), 8, signed=True)


# --- Hashes: binary and big-endian; each optional part is announced by a flag.


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def optional(value):
    if value is None:
        return b"\0"
    encoded = text(value)
    return b"\1" + integer(len(encoded), 4) + encoded


def short(value):
    encoded = text(value)
    return integer(len(encoded), 1) + encoded


def genesis(user):
    """What the first entry of a wallet continues."""
    return sha256(b"purse.genesis.v1\n", identifier(user))


def sealed(entry):
    """What the first entry with a hash continues, if there are older ones without: it covers the last of those."""
    return sha256(
        b"purse.sealed.v1\n",
        identifier(entry["userId"]),
        integer(entry["seq"], 8),
        identifier(entry["id"]),
        integer(entry["balanceAfterMinor"], 8),
        micros(entry["createdAt"]),
    )


def texts_digest(texts):
    members(texts, {"salt", "description", "reference", "metadata"})
    metadata = texts["metadata"]
    if metadata is not None:
        require(isinstance(metadata, dict), "the metadata is not an object")
        require(all(isinstance(value, str) for value in metadata.values()), "the metadata has other values than texts")
        metadata = json.dumps(metadata, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return sha256(
        b"purse.texts.v1\n",
        hexadecimal(texts["salt"], 16),
        optional(texts["description"]),
        optional(texts["reference"]),
        optional(metadata),
    )


def entry_hash(previous, entry):
    """The hash of an entry that continues `previous`."""
    members(entry, ALWAYS, OPTIONAL)
    require(entry["type"] in KINDS, "the type of the entry is unknown")
    require(("idempotencyKey" in entry) == ("requestDigest" in entry), "a key is not covered without its digest")
    flags, parts = 0, []
    if "origin" in entry:
        origin = members(entry["origin"], {"seq", "nth", "leftMinor"})
        flags |= 1
        parts += [integer(origin["seq"], 8), integer(origin["nth"], 4), integer(origin["leftMinor"], 8)]
    if "transfer" in entry:
        transfer = members(entry["transfer"], {"id", "userId"})
        flags |= 2
        parts += [identifier(transfer["id"]), identifier(transfer["userId"])]
    if "expiresAt" in entry:
        flags |= 4
        parts.append(micros(entry["expiresAt"]))
    if "idempotencyKey" in entry:
        flags |= 8
        parts += [short(entry["idempotencyKey"]), hexadecimal(entry["requestDigest"], 16)]
    if "textsDigest" in entry:
        flags |= 16
        parts.append(hexadecimal(entry["textsDigest"], 32))
    if "groupSize" in entry:
        flags |= 32
        parts.append(integer(entry["groupSize"], 2))
    if "postedBy" in entry:
        flags |= 64
        parts.append(short(entry["postedBy"]))
    return sha256(
        b"purse.entry.v1\n",
        previous,
        identifier(entry["userId"]),
        integer(entry["seq"], 8),
        identifier(entry["id"]),
        integer(KINDS[entry["type"]], 1),
        integer(entry["amountMinor"], 8),
        integer(entry["balanceAfterMinor"], 8),
        integer(entry["heldAfterMinor"], 8),
        micros(entry["createdAt"]),
        integer(flags, 1),
        *parts,
    )


def signed_bytes(user, seq, digest):
    return b"purse.receipt.v1\n" + identifier(user) + integer(seq, 8) + digest


# --- What the files say.


class Known:
    """One sequence number of a wallet. `previous` is None on entries without a hash, and where only a head is known."""

    def __init__(self, name, previous, digest, shown, is_entry, is_signed, lacks_texts=False):
        self.name, self.previous, self.digest = name, previous, digest
        # The balance, the held amount and the time: the signature of a head does not cover them, the hash of an entry does.
        self.shown = shown
        self.is_entry, self.is_signed, self.lacks_texts = is_entry, is_signed, lacks_texts


class Evidence:
    def __init__(self, keys):
        self.keys, self.wallets, self.faults, self.signatures = keys, {}, [], 0

    def add_document(self, name, document):
        is_known = isinstance(document, dict) and not {"items", "entry", "hash"}.isdisjoint(document)
        require(is_known, f"is no {DOCUMENT}: save the whole response of the API")
        if "items" in document:
            members(document, {"version", "items", "nextAfter"})
            require(document["version"] == 1, "the version is unknown")
            require(isinstance(document["items"], list), "items is not a list")
            for item in document["items"]:
                self.attempt(name, self.add_entry, name, members(item, {"entry", "texts", "previousHash", "hash"}))
        elif "entry" in document:
            receipt = {"version", "signature"} if {"version", "signature"} & set(document) else set()
            members(document, {"entry", "texts", "previousHash", "hash"} | receipt)
            require(document.get("version", 1) == 1, "the version is unknown")
            self.add_entry(name, document)
        else:
            fields = {"version", "userId", "seq", "hash", "balanceMinor", "heldMinor", "at", "signature"}
            self.add_head(name, members(document, fields))

    def attempt(self, name, action, *arguments):
        try:
            action(*arguments)
        except Wrong as wrong:
            self.faults.append(f"{name}: {wrong}")

    def add_entry(self, name, receipt):
        entry, texts = receipt["entry"], receipt["texts"]
        require(isinstance(entry, dict) and type(entry.get("seq")) is int and entry["seq"] >= 1, "the entry has no sequence number")
        where = f"entry {entry['seq']}"
        if receipt["hash"] is None and receipt["previousHash"] is None:
            previous, digest = None, sealed(members(entry, ALWAYS, OPTIONAL))
        else:
            previous, digest = hexadecimal(receipt["previousHash"], 32), hexadecimal(receipt["hash"], 32)
            require(entry_hash(previous, entry) == digest, f"{where} is not the one that was hashed")
            if texts is not None:
                sealed_texts = texts_digest(texts).hex() == entry.get("textsDigest")
                require(sealed_texts, f"the texts of {where} are not those that were hashed")
            if entry["seq"] == 1:
                require(previous == genesis(entry["userId"]), f"{where} continues another chain")
        is_signed = self.is_signed(where, entry["userId"], entry["seq"], digest, receipt.get("signature"))
        shown = (entry["balanceAfterMinor"], entry["heldAfterMinor"], entry["createdAt"])
        lacks_texts = texts is None and "textsDigest" in entry
        self.add(entry["userId"], entry["seq"], Known(name, previous, digest, shown, True, is_signed, lacks_texts))

    def add_head(self, name, head):
        require(head["version"] == 1, "the version is unknown")
        digest = hexadecimal(head["hash"], 32)
        require(type(head["seq"]) is int and head["seq"] >= 0, "the head has no sequence number")
        if head["seq"] == 0:
            require(digest == genesis(head["userId"]), "the empty wallet has another chain")
            empty = (head["balanceMinor"], head["heldMinor"], head["at"]) == (0, 0, None)
            require(empty, "a wallet without entries has no balance and no time")
        else:
            micros(head["at"])
        integer(head["balanceMinor"], 8)
        integer(head["heldMinor"], 8)
        is_signed = self.is_signed("the head", head["userId"], head["seq"], digest, head["signature"])
        shown = (head["balanceMinor"], head["heldMinor"], head["at"])
        self.add(head["userId"], head["seq"], Known(name, None, digest, shown, False, is_signed))

    def is_signed(self, where, user, seq, digest, signature):
        if signature is None:
            return False
        members(signature, {"alg", "kid", "value"})
        self.signatures += 1
        if self.keys is None:
            return False
        require(signature["alg"] == "EdDSA", f"{where} has another kind of signature")
        require(signature["kid"] in self.keys, f"{where} is signed with an unknown key")
        valid = self.keys[signature["kid"]](base64url(signature["value"]), signed_bytes(user, seq, digest))
        require(valid, f"the signature of {where} is not valid")
        return True

    def add(self, user, seq, new):
        known = self.wallets.setdefault(user, {}).setdefault(seq, new)
        require(known.digest == new.digest, f"{known.name} has another entry {seq} of this wallet")
        require(known.shown == new.shown, f"balance, held amount or time of {seq} is not that in {known.name}")
        if new.is_entry and known.is_entry:
            known.lacks_texts = known.lacks_texts and new.lacks_texts
        elif new.is_entry:
            known.previous, known.is_entry, known.lacks_texts = new.previous, True, new.lacks_texts
        known.is_signed = known.is_signed or new.is_signed

    def compare(self):
        for wallet in self.wallets.values():
            covered = {}
            for seq in sorted(wallet, reverse=True):
                known, after = wallet[seq], wallet.get(seq + 1)
                covered[seq] = known.is_signed
                if after is not None and after.is_entry:
                    if after.previous is None and known.previous is None:
                        pass  # Both are older than the hash chain.
                    elif after.previous == known.digest:
                        covered[seq] = covered[seq] or covered[seq + 1]
                    else:
                        self.faults.append(f"{after.name}: entry {seq + 1} does not continue the hash of the entry before it")
                has_hash = known.previous is not None or not known.is_entry
                if self.keys is not None and has_hash and not covered[seq]:
                    self.faults.append(f"{known.name}: no signature covers {'entry' if known.is_entry else 'the head at'} {seq}")

    def summary(self):
        chained = sealed_entries = unchained = heads = lack_texts = 0
        for wallet in self.wallets.values():
            followed = False
            for seq in sorted(wallet, reverse=True):
                known = wallet[seq]
                lack_texts += known.lacks_texts
                if not known.is_entry:
                    heads += 1
                elif known.previous is not None:
                    chained, followed = chained + 1, True
                elif followed:
                    sealed_entries += 1
                else:
                    unchained += 1
        def count(number, one, many):
            return f"1 {one}" if number == 1 else f"{number} {many}"

        not_verified = ""
        if lack_texts:
            not_verified += f"; not verified, because erased or left out: the texts of {count(lack_texts, 'entry', 'entries')}"
        if heads:
            of = count(heads, "head", "heads")
            not_verified += f"; not verified without its entry: the balance, held amount and time of {of}"
        entries = count(chained + sealed_entries + unchained, "entry", "entries")
        scope = f"{entries} ({chained} chained, {sealed_entries} sealed, {unchained} unchained)"
        return chained + heads, scope, not_verified


def base64url(value):
    require(isinstance(value, str) and re.fullmatch("[A-Za-z0-9_-]*", value) and len(value) % 4 != 1, "base64url is missing")
    decoded = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    require(base64.urlsafe_b64encode(decoded).decode().rstrip("=") == value, "base64url ends in unused bits")
    return decoded


def distinct(pairs):
    require(len({name for name, _ in pairs}) == len(pairs), "a field occurs twice")
    return dict(pairs)


DOCUMENT = "receipt, page of the hash chain or head"


def read(name, what):
    try:
        with open(name, encoding="utf-8") as file:
            return json.load(file, object_pairs_hook=distinct)
    except OSError as error:
        raise Wrong(f"cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise Wrong(f"is no {what}: it is not JSON: {error}") from None


def verifiers(name):
    """A function for each key ID, which returns whether a signature of a message is valid."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    def verifier(x):
        key = Ed25519PublicKey.from_public_bytes(base64url(x))

        def verify(signature, message):
            try:
                key.verify(signature, message)
            except InvalidSignature:
                return False
            return True

        return verify

    keys = members(read(name, "set of keys"), {"keys"})["keys"]
    keys = [key for key in keys if key.get("kty") == "OKP" and key.get("crv") == "Ed25519"]
    return {key["kid"]: verifier(key["x"]) for key in keys}


def main(arguments):
    parser = argparse.ArgumentParser(description="Verifies receipts of purse without purse.")
    parser.add_argument("--keys", metavar="KEYS", help="public keys, from /.well-known/purse-keys.json")
    parser.add_argument("files", metavar="FILE", nargs="+", help="receipts, pages of the hash chain, and heads")
    options = parser.parse_args(arguments)
    try:
        evidence = Evidence(verifiers(options.keys) if options.keys else None)
    except ImportError:
        print("to verify signatures, install the package: pip install cryptography", file=sys.stderr)
        return 2
    except Wrong as wrong:
        print(f"{options.keys}: {wrong}", file=sys.stderr)
        return 2
    for name in options.files:
        evidence.attempt(name, lambda: evidence.add_document(name, read(name, DOCUMENT)))
    evidence.compare()
    verified, scope, not_verified = evidence.summary()
    for fault in evidence.faults:
        print(ascii(fault)[1:-1], file=sys.stderr)
    if evidence.faults:
        print(f"{scope}: {len(evidence.faults)} wrong")
        return 1
    if not verified:
        print(f"{scope}: nothing was verified, because no entry has a hash")
        return 2
    unverified = "; no signature was verified without --keys" if evidence.signatures and evidence.keys is None else ""
    print(f"{scope}: all consistent{unverified}{not_verified}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
