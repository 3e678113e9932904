"""One file on its way in: pieces put in order, counted, and handed to a blob."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from ingestd.blobs.store import BlobInfo
from ingestd.domain.errors import IngestdError, Invalid
from ingestd.domain.plan import MIB
from ingestd.ingest.incoming import Incoming
from ingestd.settings import SftpSettings

WINDOW: Final = 4 * MIB
"""How many bytes may wait for an earlier piece: some clients send several pieces at once, in any order."""

EARLY_PIECES: Final = 1024
PASS_ON: Final = MIB

FIRST_SECONDS: Final = 60.0
"""How long an upload may be as slow as it likes."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow an upload may be (T37): seconds between two pieces and in all, bytes a second on average."""

    idle: float
    longest: float
    slowest: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def of(cls, settings: SftpSettings) -> Self:
        """The pace of the settings."""
        return cls(settings.idle_handle_timeout, settings.longest_upload, settings.slowest_upload)


class Upload:
    """A file being received. After any error it is lost: what came is forgotten and `commit` refuses.

    It may have `limit` bytes, of which the first that are `kept` are passed on.

    One call at a time. Bytes are passed on 1 MiB at a time: to seal and store them a thread is needed, since on object
    storage they wait for the network.
    """

    def __init__(self, name: str, incoming: Incoming, *, limit: int, pace: Pace, kept: int | None = None) -> None:
        self.name = name
        self.size = 0
        self.incoming = incoming
        self._limit = limit
        self._kept = limit if kept is None else kept
        self._pace = pace
        self._began = self._touched = pace.clock()
        self._ready: list[bytes] = []
        self._ready_bytes = 0
        self._early: dict[int, bytes] = {}
        self._early_bytes = 0
        self._refusal: IngestdError | None = None

    async def write(self, offset: int, data: bytes) -> None:
        """Take a piece, or raise Invalid where it is beyond the limit, leaves too wide a hole or rewrites (T26)."""
        try:
            self._check_pace()
            self._check(offset, data)
            if offset > self.size:
                self._early[offset] = data
                self._early_bytes += len(data)
                return
            self._append(data)
            while (early := self._early.pop(self.size, None)) is not None:
                self._early_bytes -= len(early)
                self._append(early)
            if self._ready_bytes >= PASS_ON:
                await self.incoming.write(self._take())
        except BaseException as fault:
            self.abort()
            if isinstance(fault, IngestdError):
                self._refusal = self._refusal or fault
            raise

    async def commit(self) -> BlobInfo:
        """Make the bytes durable (P1), or raise Invalid where some are missing."""
        if self.incoming.closed:
            raise self._refusal or Invalid("The upload failed before it was closed.", code="upload_failed")
        if self._early:
            self.abort()
            raise Invalid("The upload has a hole: send the whole file, from its first byte.", code="upload_hole")
        await self.incoming.write(self._take())
        return await self.incoming.commit()

    def end_if_idle(self) -> None:
        """Forget the upload if no piece has come for too long."""
        if self._pace.clock() - self._touched > self._pace.idle and not self.incoming.closed:
            self._refusal = Invalid("Nothing came for too long; send the file again.", code="upload_idle")
            self.abort()

    def abort(self) -> None:
        """Forget the upload; no effect after `commit`."""
        self.incoming.abort()
        self._ready.clear()
        self._early.clear()

    def _check_pace(self) -> None:
        self._touched = self._pace.clock()
        took = self._touched - self._began
        if took > self._pace.longest or (took > FIRST_SECONDS and self.size < took * self._pace.slowest):
            raise Invalid("The upload is too slow; send the file again.", code="upload_slow")

    def _check(self, offset: int, data: bytes) -> None:
        if self.incoming.closed:
            raise Invalid("The upload has failed; begin it again.", code="upload_failed")
        if offset + len(data) > self._limit:
            raise Invalid(f"The file is larger than {self._limit} bytes.", code="file_too_large")
        if offset < self.size or offset in self._early:
            raise Invalid("What was received cannot be overwritten.", code="upload_rewrite")
        far = offset - self.size + len(data) > WINDOW or self._early_bytes + len(data) > WINDOW
        if offset > self.size and (far or len(self._early) == EARLY_PIECES):
            raise Invalid("The upload has a hole: send the whole file, from its first byte.", code="upload_hole")

    def _append(self, data: bytes) -> None:
        kept = data[: max(self._kept - self.size, 0)]
        self._ready.append(kept)
        self._ready_bytes += len(kept)
        self.size += len(data)

    def _take(self) -> bytes:
        data = b"".join(self._ready)
        self._ready.clear()
        self._ready_bytes = 0
        return data
