"""ETags: strong, made of the very bytes that GET answers with; nobody keeps version numbers.

GET, PATCH and PUT get theirs by themselves (`routes`), unless more can change than they show (`with_hidden`). A route
that changes something takes `IfMatch`, reads the row *for update*, and calls `match.check(shown(row))` before it
changes anything, so that no update is lost.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from ingestd.api.problems import Refused

_TAG: Final = re.compile(r'(?:W/)?"[^"]*"')
_KEPT: Final = ("etag", "cache-control", "link", "vary")
_TAGGED: Final = {"GET", "PATCH", "PUT"}


def of(content: bytes) -> str:
    """The ETag of a body."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


@dataclass(frozen=True, slots=True)
class Match:
    """What the caller takes the resource to be: ETags, or None where it does not mind."""

    tags: frozenset[str] | None

    def check(self, *current: BaseModel | str | None) -> None:
        """Raise 412 unless the resource, as GET shows it now, is what the caller takes it for; None is not there.

        Where one has several faces, any of them will do; one whose route makes the ETag is given by that.
        """
        if self.tags is None:
            return
        known = {face if isinstance(face, str) else of(_written(face)) for face in current if face is not None}
        if not known or self.tags.isdisjoint({"*", *known}):
            raise Refused("changed_meanwhile")


def with_hidden(shown: BaseModel, hidden: bytes) -> str:
    """The ETag of a resource that can change where it does not show it; `hidden` must not tell what that is."""
    return of(_written(shown) + hidden)


def _written(shown: BaseModel) -> bytes:
    return shown.__pydantic_serializer__.to_json(shown)


def _if_match(
    if_match: Annotated[
        str | None, Header(alias="If-Match", description="Change it only if its ETag is still this one; else 412.")
    ] = None,
) -> Match:
    return Match(None if if_match is None else _tags(if_match))


IfMatch = Annotated[Match, Depends(_if_match)]


def _tags(header: str) -> frozenset[str]:
    return frozenset({"*"} if header.strip() == "*" else _TAG.findall(header))


def conditional(request: Request, response: Response) -> Response:
    """The answer with its ETag; 304 where the caller has it already."""
    if request.method not in _TAGGED or response.status_code != 200:
        return response
    if response.headers.get("content-type") != "application/json":
        return response
    tag = response.headers.setdefault("ETag", of(bytes(response.body)))
    known = {each.removeprefix("W/") for each in _tags(request.headers.get("if-none-match", ""))}
    if request.method != "GET" or not known & {tag, "*"}:
        return response
    kept = {name: response.headers[name] for name in _KEPT if name in response.headers}
    return Response(status_code=304, headers=kept)
