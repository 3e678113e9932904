"""Request bodies, read strictly: bounded, in time, and JSON without what a parser would let pass (T55)."""

from __future__ import annotations

import asyncio
import json
import re
from math import isinf
from typing import Any, Final

from fastapi import Request
from starlette.types import Message, Receive, Scope

from ingestd.api.problems import Refused

DEPTH: Final = 32
SECONDS: Final = 30.0
"""How long a body that is read as a whole may take to arrive (T54)."""

LONG: Final = 64 * 1024
"""Bytes from which on a thread parses: a mebibyte of brackets takes a second, in which others are to be answered."""

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]')
_LARGEST: Final = 2**63


class StrictRequest(Request):
    """A request whose body has at most `limit` bytes, counted as they arrive; None leaves the counting to the route."""

    def __init__(self, scope: Scope, receive: Receive, *, limit: int | None) -> None:
        super().__init__(scope, self._counted)
        self._source, self._limit, self._taken = receive, limit, 0
        declared = self.headers.get("content-length", "")
        if limit is not None and declared.isdecimal() and int(declared) > limit:
            raise _too_large(limit)

    async def _counted(self) -> Message:
        message = await self._source()
        self._taken += len(message.get("body", b""))
        if self._limit is not None and self._taken > self._limit:
            raise _too_large(self._limit)
        return message

    async def body(self) -> bytes:
        """The whole body; 408 where it takes too long."""
        try:
            async with asyncio.timeout(SECONDS):
                return await super().body()
        except TimeoutError:
            raise Refused("request_timeout", headers={"Connection": "close"}) from None

    async def json(self) -> Any:
        """The body as JSON; 400 where it is none, or is nested too deep, or says something twice."""
        text = await self.body()
        return load(text) if len(text) < LONG else await asyncio.to_thread(load, text)


def load(text: bytes) -> Any:
    """The value that a JSON text in UTF-8 stands for, or Refused with what is wrong with it."""
    try:
        _check_depth(text)
        found = json.loads(
            text.decode(), object_pairs_hook=_unique, parse_constant=_constant, parse_int=_integer, parse_float=_float
        )
    except UnicodeDecodeError:
        raise _bad("The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise _bad(f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).") from None
    if b"\\u" in text:
        _check_characters(found)
    return found


def _check_depth(text: bytes) -> None:
    """Refuse deep nesting before it is parsed; what stands in strings does not count."""
    if text.count(b"[") + text.count(b"{") <= DEPTH:
        return
    depth = 0
    for token in _TOKEN.finditer(text):
        if token[0] in b"[{":
            depth += 1
            if depth > DEPTH:
                raise _bad(f"The body is nested deeper than {DEPTH} levels.")
        elif token[0] in b"]}":
            depth -= 1


def _check_characters(value: Any) -> None:
    """Refuse escapes that stand for no character: a lone surrogate, or NUL, which PostgreSQL cannot keep."""
    if isinstance(value, str):
        if "\0" in value or (not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value)):
            raise _bad("A text in the body holds a NUL or a lone surrogate.")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_characters(key)
            _check_characters(item)
    elif isinstance(value, list):
        for item in value:
            _check_characters(item)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _bad("A key stands twice in one object of the body.")
    return found


def _constant(word: str) -> Any:
    raise _bad(f"{word} is not JSON.")


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -_LARGEST <= int(digits) < _LARGEST:
        raise _bad("A whole number in the body has more than 64 bits; a larger one is written as 1e20.")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if isinf(number):
        raise _bad("A number in the body is too large.")
    return number


def _bad(detail: str) -> Refused:
    return Refused("bad_request", detail)


def _too_large(limit: int) -> Refused:
    return Refused("too_large", f"The body may have {limit} bytes.", headers={"Connection": "close"})
