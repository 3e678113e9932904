"""The master key: its text, its rotation, its file, and the keyring that seals accounts' keys with it."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import tink
from tink import aead, prf

from ingestd.domain.errors import Forbidden, Invalid
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
    from collections.abc import Callable
    from pathlib import Path
    from uuid import UUID

prf.register()

_MASTER = aead.aead_key_templates.AES256_GCM
_SERVICE = prf.prf_key_templates.HKDF_SHA256


@dataclass(frozen=True, slots=True)
class SealedKeys:
    """An account's keys as they are stored: sealed by the master key."""

    data: bytes = field(repr=False)
    index: bytes = field(repr=False)


class Keyring:
    """The master key in use: makes and opens the keys of accounts."""

    def __init__(self, master: aead.Aead, newest: int, service: prf.Prf) -> None:
        self._master = master
        self._newest = newest
        self._service = service

    @classmethod
    def load(cls, master: str) -> Keyring:
        """Return the keyring of a master key's text; Invalid "master_key_invalid" if it is none."""
        try:
            keyset, service = (parse_keyset(part) for part in _split_master(master))
            return cls(
                keyset.primitive(aead.Aead),
                keyset.keyset_info().primary_key_id,
                service.primitive(prf.PrfSet).primary(),
            )
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

    def derive(self, purpose: str) -> bytes:
        """Return the service's 32-byte key for a purpose; for what is one account's there is `AccountKeys.mac`.

        The same for every process and after every rotation: it comes from the master key's secret part, which
        rotation keeps.
        """
        return cast("bytes", self._service.compute(purpose.encode(), 32))

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
    """Return a fresh master key: one line of text, `keyset.secret`, both base64. The secret is for `Keyring.derive`."""
    return _join_master(new_keyset(_MASTER), new_keyset(_SERVICE))


def add_master_key(master: str) -> str:
    """Return the master key with one more key, which seals from now on; the older ones still open."""
    Keyring.load(master)  # refuses what is none
    keyset, service = _split_master(master)
    return _join_master(add_key(keyset, _MASTER), service)


def drop_old_master_keys(master: str) -> str:
    """Return the master key with its newest key only, for when every account's keys have been sealed again."""
    Keyring.load(master)  # refuses what is none
    keyset, service = _split_master(master)
    return _join_master(drop_old_keys(keyset), service)


def master_from_file(path: Path) -> str:
    """Return the master key in the file; make the file, durable and for our user only, if there is none (T153).

    Processes that start at once agree on one key. Forbidden "key_file_open": another user can read the file.
    """
    with contextlib.suppress(FileNotFoundError):
        return _read_private(path)
    with contextlib.suppress(FileExistsError):  # another process was first: its key counts
        _write_private(path, new_master(), os.link)
    return _read_private(path)


def replace_master_file(path: Path, master: str) -> None:
    """Put another master key in the place of the file's: a process that dies leaves the one or the other, whole."""
    _write_private(path, master, os.replace)


def _join_master(keyset: bytes, service: bytes) -> str:
    return ".".join(base64.urlsafe_b64encode(part).decode() for part in (keyset, service))


def _split_master(master: str) -> tuple[bytes, bytes]:
    try:
        keyset, service = (base64.b64decode(part, altchars=b"-_", validate=True) for part in master.strip().split("."))
    except ValueError:
        raise Invalid("The master key is not two base64 texts joined by a dot.", code="master_key_invalid") from None
    return keyset, service


def _place(account_id: UUID, use: str) -> bytes:
    return f"ingestd account {account_id} {use}".encode()


def _read_private(path: Path) -> str:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid not in {0, os.geteuid()}:
            raise Forbidden("The key file must be for our user only (mode 0600).", code="key_file_open")
        return file.read()


def _write_private(path: Path, text: str, put: Callable[[Path, Path], None]) -> None:
    """Write a file for our user only, whole and durable, which `put` brings to its place."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        put(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
