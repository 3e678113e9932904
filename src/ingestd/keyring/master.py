"""The master key: its text, its rotation, its file, and the keyring that seals accounts' keys with it."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import tink
from tink import aead

from ingestd.domain.errors import Invalid
from ingestd.keyring import private_file
from ingestd.keyring.account import (
    INDEX_BYTES,
    AccountKeys,
    add_data_keys,
    add_key,
    drop_old_keys,
    drop_old_value_keys,
    new_data_keys,
    new_keyset,
    parse_keyset,
)
from ingestd.keyring.stream import SealBroken

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

_MASTER = aead.aead_key_templates.AES256_GCM


@dataclass(frozen=True, slots=True)
class SealedKeys:
    """An account's keys as they are stored: sealed by the master key."""

    data: bytes = field(repr=False)
    index: bytes = field(repr=False)


class Keyring:
    """The master key in use: makes and opens the keys of accounts."""

    def __init__(self, master: aead.Aead, newest: int) -> None:
        self._master = master
        self._newest = newest

    @classmethod
    def load(cls, master: str) -> Keyring:
        """Return the keyring of a master key's text; Invalid "master_key_invalid" if it is none."""
        try:
            keyset = parse_keyset(_keyset(master))
            return cls(keyset.primitive(aead.Aead), keyset.keyset_info().primary_key_id)
        except tink.TinkError:
            raise Invalid("The master key holds other keys than it should.", code="master_key_invalid") from None

    def __repr__(self) -> str:
        return f"Keyring(newest={self._newest:08x})"

    def new_account_keys(self, account_id: UUID) -> SealedKeys:
        """Return fresh keys for an account, sealed."""
        return self._seal(account_id, new_data_keys(), secrets.token_bytes(INDEX_BYTES))

    def open(self, account_id: UUID, sealed: SealedKeys) -> AccountKeys:
        """Return the account's keys; SealBroken if they are another account's or no master key fits."""
        data, index = self._unseal(account_id, sealed)
        return AccountKeys(data, index)

    def opens(self, account_id: UUID, sealed: SealedKeys) -> bool:
        """Whether these keys are the account's and sealed by one of these master keys."""
        try:
            self._unseal(account_id, sealed)
        except SealBroken:
            return False
        return True

    def rewrap(self, account_id: UUID, sealed: SealedKeys) -> SealedKeys:
        """Return the same keys sealed by the newest master key, and the very same object if they already are (T111)."""
        newest = b"\x01" + self._newest.to_bytes(4, "big")  # how Tink marks the key that sealed
        if sealed.data.startswith(newest) and sealed.index.startswith(newest):
            return sealed
        return self._seal(account_id, *self._unseal(account_id, sealed))

    def add_keys(self, account_id: UUID, sealed: SealedKeys) -> SealedKeys:
        """Return the account's keys with new ones that seal from now on; the older ones still open (T111)."""
        data, index = self._unseal(account_id, sealed)
        return self._seal(account_id, add_data_keys(data), index)

    def drop_old_keys(self, account_id: UUID, sealed: SealedKeys) -> SealedKeys:
        """Return the account's keys without the older ones for values, when none is sealed by them any more (T111)."""
        data, index = self._unseal(account_id, sealed)
        return self._seal(account_id, drop_old_value_keys(data), index)

    def _seal(self, account_id: UUID, data: bytes, index: bytes) -> SealedKeys:
        return SealedKeys(
            data=self._master.encrypt(data, _place(account_id, "data")),
            index=self._master.encrypt(index, _place(account_id, "index")),
        )

    def _unseal(self, account_id: UUID, sealed: SealedKeys) -> tuple[bytes, bytes]:
        try:
            return (
                self._master.decrypt(sealed.data, _place(account_id, "data")),
                self._master.decrypt(sealed.index, _place(account_id, "index")),
            )
        except tink.TinkError:
            raise SealBroken("The account's keys do not open with this master key.") from None


def new_master() -> str:
    """Return a fresh master key: one line of text, a keyset in base64."""
    return _text(new_keyset(_MASTER))


def add_master_key(master: str) -> str:
    """Return the master key with one more key, which seals from now on; the older ones still open."""
    Keyring.load(master)  # refuses what is none
    return _text(add_key(_keyset(master), _MASTER))


def drop_old_master_keys(master: str) -> str:
    """Return the master key with its newest key only, for when every account's keys have been sealed again."""
    Keyring.load(master)  # refuses what is none
    return _text(drop_old_keys(_keyset(master)))


def master_from_file(path: Path) -> str:
    """Return the master key in the file; make the file, durable and for our user only, if there is none (T153).

    Processes that start at once agree on one key. Forbidden "key_file_open": another user can read the file.
    """
    try:
        return private_file.read(path).decode()
    except FileNotFoundError:
        private_file.create(path, new_master().encode())
        return private_file.read(path).decode()


def replace_master_file(path: Path, master: str) -> None:
    """Put another master key in the place of the file's: a process that dies leaves the one or the other, whole."""
    private_file.replace(path, master.encode())


def _text(keyset: bytes) -> str:
    return base64.urlsafe_b64encode(keyset).decode()


def _keyset(master: str) -> bytes:
    try:
        keyset, *_ = master.strip().split(".")  # master keys of before have a second text behind a dot, of no use
        return base64.b64decode(keyset, altchars=b"-_", validate=True)
    except ValueError:
        raise Invalid("The master key is no base64 text.", code="master_key_invalid") from None


def _place(account_id: UUID, use: str) -> bytes:
    return f"ingestd account {account_id} {use}".encode()
