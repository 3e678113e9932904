"""The latest file: which of those in a folder of somebody else's server a run takes, and why (S7, S20, D1, D2)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ingestd.domain.column import is_one_line
from ingestd.domain.errors import NotFound
from ingestd.domain.segment import SEPARATOR

MAX_NAME: Final = 200
"""Characters of a file's name at most."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as a server lists it: `modified_at` is its own exact time, `name` is written as the server writes it."""

    name: str
    size: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Choice:
    """The file that is picked, and the sentence that says why."""

    file: RemoteFile
    why: str


def is_safe(name: str) -> bool:
    """Whether a name in a listing is one plain component that can be asked for and shown (T136)."""
    return 0 < len(name) <= MAX_NAME and name not in {".", ".."} and is_one_line(name) and not {"/", "\\"} & set(name)


def fits(name: str, stem: str, extension: str) -> bool:
    """Whether a file's name is `<stem>__<any suffix><extension>` (S20, D2).

    The stem counts exactly, after NFC; the extension may have capitals.
    """
    normal = unicodedata.normalize("NFC", name)
    start = unicodedata.normalize("NFC", stem) + SEPARATOR
    ends = normal.lower().endswith(extension)
    return normal.startswith(start) and ends and len(normal) > len(start) + len(extension)


def newest_first(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """The files by the server's modification time, the newest first; of equally new ones the last by name (D1)."""
    return sorted(files, key=lambda file: (file.modified_at, file.name), reverse=True)


def choose(files: Iterable[RemoteFile], stem: str, extension: str, *, growing: Iterable[str] = ()) -> Choice:
    """Pick the newest file whose name fits and that is not growing, or raise NotFound "no_file" (D1)."""
    grows, wanted = set(growing), f"{stem}{SEPARATOR}…{extension}"
    fitting = newest_first(file for file in files if fits(file.name, stem, extension))
    whole = [file for file in fitting if file.name not in grows]
    if not whole:
        found = "are all still being written" if fitting else "are not there"
        raise NotFound(f"Files named {wanted} {found}.", code="no_file")
    file = whole[0]
    why = f"The newest of {len(fitting)} files named {wanted}" if len(fitting) > 1 else f"The only file named {wanted}"
    ties = sum(other.modified_at == file.modified_at for other in whole)
    if ties > 1:
        why += f"; {ties} are equally new, of which it is the last by name"
    if fitting[0] is not file:
        why += "; what is newer is still being written"
    return Choice(file, f"{why}.")
