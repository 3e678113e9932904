"""Names that clients give to files: one flat component, safe to show (T20, T24)."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from ingestd.domain.errors import FileRefused
from ingestd.domain.plan import Limits

DATA_SUFFIX: Final = ".csv"
MAX_LENGTH: Final = 200
_SAFE: Final = re.compile(r"\w[\w .()-]*")
_MARKS: Final = {"Mn", "Mc"}
_UNSEEN: Final = re.compile("[\u034f\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Marks that nobody sees."""


def safe_name(name: str) -> str | None:
    """The NFC form of a name that may be stored, or None.

    Letters and digits of any script with their marks, space, and `_ . ( ) -`; it begins with a letter, a digit or `_`
    and has at most 200 characters.
    """
    normal = unicodedata.normalize("NFC", name)
    if len(normal) > MAX_LENGTH or _UNSEEN.search(normal):
        return None
    plain = "".join(char for char in normal if unicodedata.category(char) not in _MARKS)
    return normal if _SAFE.fullmatch(plain) and plain[0] == normal[0] else None


def refuse_unfit(name: str, size: int, limits: Limits) -> None:
    """Raise FileRefused for what is no data file by its name or size (S86, S138)."""
    if not name.lower().endswith(DATA_SUFFIX):
        raise FileRefused("A data file's name must end in .csv.")
    if size > limits.file_bytes:
        raise FileRefused(f"The file has {size} bytes; {limits.file_bytes} are allowed.")
