"""Downloads of stored files: whole or one range, with a strong ETag, and a name that can break no header (T61, T62)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import BinaryIO, Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from ingestd.api.problems import Refused

_CHUNK: Final = 256 * 1024
_ONE_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Download:
    """A file that can be downloaded: its name, its size in bytes, what it is, and how to read it from a byte on.

    `version` tells its content from any other's.
    """

    name: str
    size: int
    media_type: str
    version: str
    open: Callable[[int], BinaryIO]


async def download(request: Request, file: Download) -> Response:
    """The answer to GET or HEAD: 200, 206 for one range, 304, or 416; several ranges are answered with the whole."""
    tag = f'"{file.version}"'
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": disposition(file.name),
        "Cache-Control": "no-store",
    }
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or tag in re.findall(r'"[^"]*"', known):
        return Response(status_code=304, headers=headers)
    start, end, status = 0, file.size, 200
    if request.headers.get("if-range", tag) == tag and (asked := _range(request.headers.get("range", ""), file.size)):
        start, end = asked
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    headers["Content-Length"] = str(end - start)
    if request.state.head:
        return Response(status_code=status, headers=headers, media_type=file.media_type)
    stream = await asyncio.to_thread(file.open, start)
    return StreamingResponse(_chunks(stream, end - start), status, headers=headers, media_type=file.media_type)


def disposition(name: str) -> str:
    """The Content-Disposition of an attachment: plain ASCII for old clients, the very name for others (RFC 6266)."""
    plain = re.sub(r"[^\w.() -]", "_", name, flags=re.ASCII)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _range(header: str, size: int) -> tuple[int, int] | None:
    """The one range asked for as first byte and end, or None where the whole is the answer; 416 where it has none."""
    found = _ONE_RANGE.fullmatch(header.strip())
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:  # the last so many bytes
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
    if last and first and int(last) < int(first):
        return None
    if start >= end:
        raise Refused("range_not_satisfiable", headers={"Content-Range": f"bytes */{size}"})
    return start, end


async def _chunks(stream: BinaryIO, size: int) -> AsyncIterator[bytes]:
    try:
        while size > 0 and (chunk := await asyncio.to_thread(stream.read, min(size, _CHUNK))):
            size -= len(chunk)
            yield chunk
    finally:
        await asyncio.to_thread(stream.close)
