"""A file on its way in through any door, and the room it takes of its account's quota (T42)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd import telemetry
from ingestd.blobs.store import BlobInfo, BlobStore, BlobWriter
from ingestd.domain.errors import Conflict
from ingestd.domain.plan import MIB
from ingestd.store import usage
from ingestd.store.engine import Sessions, new_id, transaction, utc_now

log = telemetry.logger(__name__)

STEP: Final = 16 * MIB
"""Room is taken in steps of so many bytes, each when they have come; smaller files take theirs at the end only."""


@dataclass(frozen=True)
class Room:
    """Where room is taken: the database, the limit in bytes, and what is still to be done once files are gone."""

    sessions: Sessions
    blobs: BlobStore
    limit: int
    _later: set[asyncio.Task[None]] = field(default_factory=set, repr=False)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something soon that nobody waits for; what fails is left to the upkeep."""
        task = asyncio.get_running_loop().create_task(self._try(work))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def close(self) -> None:
        """Wait until all that is done."""
        while self._later:
            await asyncio.wait(self._later)

    async def _try(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as fault:
            log.warning("left_to_upkeep", exc_info=fault)


class Incoming:
    """A file being received: `write` its bytes, `commit` and `add_file`; then, whatever happened, `abort`.

    What has come counts against the account's quota step by step, and to the byte in the transaction of the file's
    row. So an account is beyond its quota by less than a step for each open upload, and only while that is open.
    """

    def __init__(self, account_id: UUID, writer: BlobWriter, room: Room) -> None:
        self.account_id = account_id
        self.size = 0
        self._id = new_id()
        self._writer = writer
        self._room = room
        self._reserved = 0

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._writer.closed

    async def write(self, data: bytes) -> None:
        """Take the next bytes, or raise Conflict where the account has no room for them."""
        await asyncio.to_thread(self._writer.write, data)
        self.size += len(data)
        while self.size - self._reserved >= STEP:
            async with transaction(self._room.sessions) as session:
                if not await usage.reserve(
                    session, self._id, self.account_id, STEP, limit=self._room.limit, now=utc_now()
                ):
                    raise self._no_room()
            self._reserved += STEP

    async def commit(self) -> BlobInfo:
        """Make the bytes durable (P1); they are a file once `add_file` has written its row."""
        return await asyncio.to_thread(self._writer.commit)

    async def settle(self, session: AsyncSession, blob: BlobInfo) -> None:
        """Count the file's size in the caller's transaction, or raise Conflict and forget the blob."""
        rest = blob.size - await usage.end(session, self._id)
        if not await usage.take(session, self.account_id, rest, limit=self._room.limit):
            self._room.later(asyncio.to_thread(self._room.blobs.delete, [blob.name]))
            raise self._no_room()

    def abort(self) -> None:
        """Forget the upload and give its room back; no effect on a file that has been added."""
        self._writer.abort()
        if self._reserved:
            self._reserved = 0
            self._room.later(self._give_back())

    async def _give_back(self) -> None:
        async with transaction(self._room.sessions) as session:
            freed = await usage.end(session, self._id)
            if freed:
                await usage.give_back(session, self.account_id, freed)

    def _no_room(self) -> Conflict:
        return Conflict(
            f"The account's files would take more than {self._room.limit} bytes. Remove files, or wait until older "
            "ones expire.",
            code="quota_exceeded",
        )
