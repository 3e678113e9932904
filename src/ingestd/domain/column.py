"""What a column can hold and what an operation does to it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

OPERATION_SUFFIX: Final = ".operation"
FAILURE_COLUMN: Final = "Failure Description"
"""The last column of an error file (S128)."""

ACTIVE: Final = tuple("'=+-@\t\r\n\0＝＋－＠")  # noqa: RUF001 -- full-width signs
"""How a cell begins that a spreadsheet could take for a formula, or that begins with the guard `'` itself (T100)."""

MAX_NAME_LENGTH: Final = 120
MAX_EVENT_NAME_LENGTH: Final = 512
MAX_EVENT_PROPERTIES: Final = 100


_JOINERS: Final = {"\u200c", "\u200d"}
"""Without them words of some scripts cannot be written, nor some emojis."""


def is_one_line(text: str) -> bool:
    """Whether a text can be shown as it stands: spaces of every script, but nothing else that is not seen."""
    return text.isprintable() or all(
        char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs" for char in text
    )


def guarded(cell: str) -> str:
    """A cell of a CSV file as a spreadsheet shows it and computes nothing."""
    return f"'{cell}" if cell.startswith(ACTIVE) else cell


class DataType(StrEnum):
    """The type of an attribute's or a property's values (S113, D14). A manifest may name the first five."""

    STRING = "STRING"
    INTEGER = "INTEGER"
    FLOAT = "FLOAT"
    BOOLEAN = "BOOLEAN"
    LONG = "LONG"
    DATE = "DATE"
    EMAIL = "EMAIL"
    PHONE = "PHONE"


MANIFEST_TYPES: Final = (DataType.STRING, DataType.INTEGER, DataType.FLOAT, DataType.BOOLEAN, DataType.LONG)


class Operation(StrEnum):
    """What a row does to one attribute of its profile (S98 to S101); a blank one assigns (S102)."""

    ADD = "$add"
    SET = "$set"
    REMOVE = "$remove"
    DELETE = "$delete"


OPERATION_CODES: Final = {Operation.ADD: 1, Operation.SET: 2, Operation.REMOVE: 3, Operation.DELETE: 4}
"""How an operation stands in the columns `o:<name>` of checked rows; null is none."""


class Preference(StrEnum):
    """A communication preference, written in a file as a column of this name, in any case (S104, D25)."""

    SMS = "MSG-sms"
    EMAIL = "MSG-email"
    WHATSAPP = "MSG-whatsapp"
    PUSH = "MSG-push"
    DND_SMS = "MSG-dndSMS"
    DND_EMAIL = "MSG-dndEmail"


PREFERENCES: Final = {preference.casefold(): preference for preference in Preference}

PERMISSIONS: Final = {
    "push": Preference.PUSH,
    "email": Preference.EMAIL,
    "sms": Preference.SMS,
    "whatsapp": Preference.WHATSAPP,
}
DO_NOT_DISTURB: Final = {"email": Preference.DND_EMAIL, "sms": Preference.DND_SMS}


def permitted(preferences: Mapping[str, bool]) -> list[str]:
    """The channels by which a person may be written to: those permitted, but do-not-disturb wins (D25).

    `preferences` {name: boolean} need not be complete: what was never said is no permission.
    """
    return [
        channel
        for channel, permission in PERMISSIONS.items()
        if preferences.get(permission) and not preferences.get(DO_NOT_DISTURB.get(channel, ""))
    ]


def operation_base(name: str) -> str | None:
    """The column whose operations a column of this name holds, or None; the suffix counts in any case (D23)."""
    base, suffix = name[: -len(OPERATION_SUFFIX)], name[-len(OPERATION_SUFFIX) :]
    return base if suffix.lower() == OPERATION_SUFFIX else None


def name_problem(name: str) -> str | None:
    """Say what is wrong with an attribute's or property's name, or None (D46)."""
    normal = unicodedata.normalize("NFC", name)
    if not normal.strip():
        return "is blank"
    if len(normal) > MAX_NAME_LENGTH:
        return f"is longer than {MAX_NAME_LENGTH} characters"
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in normal):
        return "holds a control character"
    if '"' in normal or "\\" in normal:
        return "holds a quote or a backslash"
    return None
