"""Names that clients give to files: one flat component, safe to show (T20, T24)."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_SAFE: Final = re.compile(r"\w[\w .()-]{0,199}")


def safe_name(name: str) -> str | None:
    """The NFC form of a name that may be stored, or None.

    Letters and digits of any script, space, and `_ . ( ) -`; it begins with a letter, a digit or `_`
    and has at most 200 characters.
    """
    normal = unicodedata.normalize("NFC", name)
    return normal if _SAFE.fullmatch(normal) else None
