"""Identifiers of people: their kinds, precedence and normal form (D54, T117)."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from ingestd.domain.column import DataType

MAX_IDENTIFIER_LENGTH: Final = 1023

SLICES: Final = 16
"""Into so many equal ranges are cut the ids of all people, and the hashes of their identifiers, that are stored."""


class IdentifierKind(IntEnum):
    """A kind of identifier; the number is stored and gives the precedence, smallest first (D54).

    Kinds above 100 are attributes made with `identifier: true`.
    """

    IDENTITY = 1
    OBJECT_ID = 2
    FB_ID = 3
    GP_ID = 4
    EXTERNAL_ID = 5
    EMAIL = 6
    MOBILE = 7

    @property
    def word(self) -> str:
        """The word of the API, the documents and the database for this kind."""
        return _WORDS[self]


_WORDS: Final = {
    IdentifierKind.IDENTITY: "identity",
    IdentifierKind.OBJECT_ID: "objectId",
    IdentifierKind.FB_ID: "fbId",
    IdentifierKind.GP_ID: "gpId",
    IdentifierKind.EXTERNAL_ID: "external_id",
    IdentifierKind.EMAIL: "email",
    IdentifierKind.MOBILE: "mobile",
}

KIND_OF_WORD: Final = {word.casefold(): kind for kind, word in _WORDS.items()} | {"guid": IdentifierKind.OBJECT_ID}
"""Kind by its word, lower case; `guid` is an alias of `objectId` (D35)."""

FORMATS: Final[Mapping[int, DataType]] = {
    IdentifierKind.EMAIL: DataType.EMAIL,
    IdentifierKind.MOBILE: DataType.PHONE,
}
"""The kinds that have a format, among those that all accounts have; the others are texts (D5)."""

REACHABLE: Final = frozenset({IdentifierKind.EMAIL, IdentifierKind.MOBILE})
"""The kinds by which somebody can be written to, so that not everybody who reads of people is shown them."""

MANIFEST_KINDS: Final = (
    IdentifierKind.IDENTITY,
    IdentifierKind.OBJECT_ID,
    IdentifierKind.FB_ID,
    IdentifierKind.GP_ID,
)
"""The kinds that identify a person in a manifest file (D19)."""


FIRST_OWN_KIND: Final = 101
"""The kinds of identifiers that are an account's own attributes begin here."""


def kind_word(kind: int) -> str:
    """The key of a kind of identifier in `profiles.identifiers`: its word, or its number if it is an attribute's."""
    return IdentifierKind(kind).word if kind < FIRST_OWN_KIND else str(kind)


def kind_of(word: str) -> int:
    """The kind that such a key stands for."""
    return int(word) if word.isdecimal() else int(KIND_OF_WORD[word.casefold()])


def normalise(value: str, format_: DataType = DataType.STRING) -> str | None:
    """Bring an identifier to its normal form, or None if it is none (T117).

    ASCII white space around it goes, the rest becomes NFC; case is kept, but for the domain of an address, which is the
    same in every case. It has 1 to 1,023 code points and no control, format, private-use or surrogate character.
    """
    normal = unicodedata.normalize("NFC", value.strip(" \t\r\n\v\f"))
    if not 1 <= len(normal) <= MAX_IDENTIFIER_LENGTH or not normal.strip():
        return None
    if any(unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs"} for char in normal):
        return None
    if format_ is DataType.EMAIL:
        mailbox, at, domain = normal.rpartition("@")
        return mailbox + at + domain.lower()
    return normal
