"""Personal data: values that are sealed before they are stored, and masked where they are shown (S61, D13, D55)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

MASK: Final = "***"
"""What stands for a personal value: it tells neither its length nor its ends."""

SEALED: Final = "$E"


def is_sealed(stored: Any) -> bool:
    """Whether a stored value, not a list, is sealed: `{"$E": token}`."""
    return isinstance(stored, dict) and stored.keys() == {SEALED}


def canonical(text: str) -> str:
    """The one JSON text of a value, so that equal values are sealed to equal tokens, however they were written."""
    if text.startswith('"') and "\\" not in text:
        return text
    return canonical_of(json.loads(text))


def canonical_of(value: Any) -> str:
    """The same of a value that was read from JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def identifier_place(word: str) -> str:
    """The place that an identifier's token is bound to, by the key of its kind in a profile (T112).

    The values of an attribute are bound to its name, which has no such character.
    """
    return f"identifier\0{word}"


def each_value(stored: Any, change: Callable[[Any], Any]) -> Any:
    """A stored value as `change` gives it, a list element by element."""
    return [change(each) for each in stored] if isinstance(stored, list) else change(stored)
