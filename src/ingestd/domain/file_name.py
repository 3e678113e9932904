"""Names that clients give to files: one flat component, safe to show (T20, T24)."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from ingestd.domain.errors import FileRefused
from ingestd.domain.plan import Limits

DATA_SUFFIX: Final = ".csv"
_SAFE: Final = re.compile(r"\w[\w .()-]{0,199}")


def safe_name(name: str) -> str | None:
    """The NFC form of a name that may be stored, or None.

    Letters and digits of any script, space, and `_ . ( ) -`; it begins with a letter, a digit or `_`
    and has at most 200 characters.
    """
    normal = unicodedata.normalize("NFC", name)
    return normal if _SAFE.fullmatch(normal) else None


def refuse_unfit(name: str, size: int, limits: Limits) -> None:
    """Raise FileRefused for what is no data file by its name or size (S86, S138)."""
    if not name.lower().endswith(DATA_SUFFIX):
        raise FileRefused("A data file's name must end in .csv.")
    if size > limits.file_bytes:
        raise FileRefused(f"The file has {size} bytes; {limits.file_bytes} are allowed.")
