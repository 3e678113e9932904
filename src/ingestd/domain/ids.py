"""Ids as clients see them: `<prefix>_<26 characters>`, Crockford base32 of a UUID (TypeID's form)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final
from uuid import UUID

from ingestd.domain.errors import NotFound

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES: Final = {char: value for value, char in enumerate(_ALPHABET)}
_LENGTH: Final = 26
_BITS: Final = 128
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS: Final = range(5 * (_LENGTH - 2), -1, -10)
"""Two characters at a time: pages of a list hold hundreds of ids."""


class Prefix(StrEnum):
    """The prefix of each kind of thing."""

    ACCOUNT = "acc"
    API_KEY = "key"
    AUDIT_ENTRY = "aud"
    IMPORT_KEY = "ikey"
    FILE = "fil"
    MANIFEST = "mft"
    INGESTION = "ing"
    PROFILE = "prf"
    EVENT = "evt"
    WEBHOOK = "whk"
    DELIVERY = "dlv"
    MESSAGE = "msg"
    RECIPIENT = "rcp"
    SEGMENT = "seg"
    DATA_SOURCE = "src"
    CONNECTION = "con"
    RUN = "run"
    ATTRIBUTE = "atr"
    PARTITION = "prt"
    SNAPSHOT = "snp"
    REQUEST = "req"


def encode(value: UUID) -> str:
    """Write a UUID as 26 characters, most significant first."""
    number = value.int
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def decode(text: str) -> UUID | None:
    """Read 26 characters back as a UUID, or None."""
    if len(text) != _LENGTH:
        return None
    number = 0
    for char in text:
        digit = _VALUES.get(char)
        if digit is None:
            return None
        number = number * 32 + digit
    return UUID(int=number) if number >> _BITS == 0 else None


def show(prefix: Prefix, value: UUID) -> str:
    """Write an id with its prefix."""
    return f"{prefix}_{encode(value)}"


def read(prefix: Prefix, text: str) -> UUID:
    """Read an id with its prefix, or raise NotFound: a malformed id names nothing."""
    head, _, tail = text.partition("_")
    found = decode(tail) if head == prefix else None
    if found is None:
        raise NotFound(f"There is no {text[:40]!r}.")
    return found
