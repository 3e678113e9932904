"""A multipart form, read as it arrives: no field of it is ever whole in memory unless its reader wants that.

The framework's own way would keep a form's files in the clear on a disk; here each piece is handed on as it comes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ingestd.api.files import pieces
from ingestd.api.problems import Refused

MEDIA_TYPE: Final = "multipart/form-data"


class Piece(NamedTuple):
    """The next bytes of a field; each field begins with a piece that has none."""

    field: str
    file_name: str | None
    data: bytes


async def read(request: Request) -> AsyncGenerator[Piece]:
    """Give the fields of a request's form piece by piece; Refused where it is no form, or ends before its end."""
    form = _Form()
    _, options = parse_options_header(request.headers.get("content-type"))
    try:
        parser = MultipartParser(
            options.get(b"boundary", b""),
            {
                "on_part_begin": form.begin,
                "on_header_field": form.name,
                "on_header_value": form.value,
                "on_header_end": form.keep,
                "on_headers_finished": form.head,
                "on_part_data": form.data,
                "on_end": form.end,
            },
        )
        async with aclosing(pieces(request)) as arriving:
            async for each in arriving:
                parser.write(each)
                for piece in form.take():
                    yield piece
    except FormParserError:
        raise _no_form("is none") from None
    if not form.ended:
        raise _no_form("is not whole")


@dataclass
class _Form:
    """What the parser has found since it was asked last."""

    ended: bool = False
    _found: list[Piece] = field(default_factory=list)
    _name: bytes = b""
    _value: bytes = b""
    _disposition: bytes = b""
    _field: str = ""
    _file_name: str | None = None

    def take(self) -> list[Piece]:
        found, self._found = self._found, []
        return found

    def begin(self) -> None:
        self._disposition = b""

    def name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def keep(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def head(self) -> None:
        _, options = parse_options_header(self._disposition)
        file_name = options.get(b"filename")
        self._field = options.get(b"name", b"").decode(errors="replace")
        self._file_name = None if file_name is None else file_name.decode(errors="replace")
        self._found.append(Piece(self._field, self._file_name, b""))

    def data(self, data: bytes, start: int, end: int) -> None:
        self._found.append(Piece(self._field, self._file_name, data[start:end]))

    def end(self) -> None:
        self.ended = True


def _no_form(what: str) -> Refused:
    return Refused("bad_request", f"The body must be a form, {MEDIA_TYPE} with a boundary; it {what}.")
