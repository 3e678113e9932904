"""Collecting: the newest file of a folder on somebody else's server becomes sealed bytes of ours (S7, D1, D53).

    list the folder → pick the newest file that fits → wait until it does not grow → fetch it, resuming → look again

Nothing is held in the database meanwhile, and nothing on the server is changed, ever (T142).
"""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from ingestd import telemetry
from ingestd.blobs.store import BlobInfo
from ingestd.domain.errors import Unavailable
from ingestd.domain.remote_file import Choice, RemoteFile, choose, fits
from ingestd.fetch.remote import BROKEN, Pace, Remote, Terms
from ingestd.ingest.connections import visiting
from ingestd.ingest.incoming import Incoming
from ingestd.ingest.intake import Intake
from ingestd.store.engine import utc_now

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which file: the newest `<stem>__<suffix><extension>` at a path below a connection's root folder.

    The path is a folder's, or that of one file, whose name must fit too (D3).
    """

    account_id: UUID
    connection_id: UUID
    path: str
    stem: str
    extension: str = ".csv"

    @property
    def place(self) -> tuple[str, str | None]:
        """The folder, and the name of the one file in it that the path speaks of, or None."""
        folder, _, name = self.path.rpartition("/")
        return (folder, name) if name.lower().endswith(self.extension) else (self.path, None)

    def takes(self, name: str) -> bool:
        """Whether the path and the name fit a file."""
        only = self.place[1]
        return fits(name, self.stem, self.extension) and (only is None or _normal(name) == _normal(only))


@dataclass(frozen=True, slots=True)
class Known:
    """The file that was taken last: one that is the same in all of this is not fetched again."""

    name: str
    size: int
    modified_at: datetime
    sha256: str


@dataclass(frozen=True, slots=True)
class Collected:
    """A file that was picked, and `why`. `modified_at` is its `data_as_of`; `name` is in NFC.

    `incoming` and `blob` are for `intake.add_file`, in the transaction that records what came of it; both are None
    where the file is the one that was taken last, `unchanged`.
    """

    name: str
    size: int
    modified_at: datetime
    why: str
    incoming: Incoming | None = None
    blob: BlobInfo | None = None

    @property
    def unchanged(self) -> bool:
        """Whether it is the file that was taken last (D1)."""
        return self.blob is None


@asynccontextmanager
async def collect(intake: Intake, terms: Terms, wanted: Wanted, known: Known | None = None) -> AsyncIterator[Collected]:
    """Fetch the wanted file into the blob store; the room it took is given back when the block is left.

    The blob stays: where the block has not added it as a file, the sweep removes it.

        async with collect(intake, terms, Wanted(account, connection, run.path, segment.name), known) as found:
            async with transaction(intake.sessions) as session:
                if not found.unchanged:
                    file = await add_file(session, found.incoming, found.blob, name=found.name, actor=…, now=now)

    Raises NotFound "no_file" where nothing fits or all that does is still growing, Forbidden "egress_denied", Conflict
    "quota_exceeded", HostKeyChanged "host_key_changed", and Unavailable: what `fetch.remote` has, "file_changed" and
    "file_too_large".
    """
    collecting = _Collecting(intake, terms, wanted, known)
    try:
        yield await collecting.run()
    finally:
        collecting.abort()


async def pick(remote: Remote, wanted: Wanted) -> Choice:
    """The file that would be fetched now, whether it grows or not, or NotFound "no_file"."""
    listing = await remote.list(wanted.place[0], wanted.takes)
    return choose(listing.files, wanted.stem, wanted.extension)


@dataclass
class _Collecting:
    """One file on its way; over several visits, where the connection breaks off."""

    intake: Intake
    terms: Terms
    wanted: Wanted
    known: Known | None
    _waited_for: RemoteFile | None = None
    _choice: Choice | None = None
    _incoming: Incoming | None = None

    async def run(self) -> Collected:
        try:
            async with asyncio.timeout(self.terms.settings.file_seconds):
                await self._visit_until_done()
        except TimeoutError:
            seconds = self.terms.settings.file_seconds
            raise Unavailable(f"The file did not come within {seconds:g} s.", code="too_slow") from None
        assert self._choice is not None
        file, why = self._choice.file, self._choice.why
        found = Collected(_normal(file.name), file.size, file.modified_at, why)
        if self._incoming is None:
            return found
        blob = await self._incoming.commit()
        if self.known is not None and self.known.sha256 == blob.sha256:
            await asyncio.to_thread(self.intake.blobs.delete, [blob.name])
            return found
        return replace(found, incoming=self._incoming, blob=blob)

    def abort(self) -> None:
        """Forget what has not been added as a file."""
        if self._incoming is not None:
            self._incoming.abort()

    async def _visit_until_done(self) -> None:
        settings = self.terms.settings
        for attempt in range(1, settings.attempts + 1):
            try:
                async with visiting(
                    self.intake, self.terms, self.wanted.account_id, self.wanted.connection_id
                ) as remote:
                    await self._fetch(remote)
            except Unavailable as failure:
                if failure.code not in BROKEN or attempt == settings.attempts:
                    raise
                log.info("transfer_broken", code=failure.code, attempt=attempt, bytes=self._size)
            else:
                return
            await asyncio.sleep(settings.retry_seconds)

    @property
    def _size(self) -> int:
        return self._incoming.size if self._incoming else 0

    async def _fetch(self, remote: Remote) -> None:
        """Choose once; then receive the file, or what is still missing of it."""
        if self._choice is None:
            self._choice = await self._settled(remote)
        file, limit = self._choice.file, self.intake.limits.file_bytes
        if self._is_known(file):
            return
        if file.size > limit:
            raise Unavailable(f"The file has more than {limit} bytes.", code="file_too_large")
        await self._check_unchanged(remote, file)
        try:
            await self._receive(remote, file)
        except Unavailable as failure:
            if failure.code != "resume_refused":
                raise
            self.abort()
            self._incoming = None
            await self._receive(remote, file)
        await self._check_unchanged(remote, file)

    async def _settled(self, remote: Remote) -> Choice:
        """The newest file that does not grow: old enough, or the same when looked at twice (T137).

        A server may hang up meanwhile: the second look is that of the next visit then.
        """
        settings, folder = self.terms.settings, self.wanted.place[0]
        files = {file.name: file for file in (await remote.list(folder, self.wanted.takes)).files}
        growing: set[str] = set()
        patience = time.monotonic() + settings.growing_seconds
        while True:
            choice = choose(files.values(), self.wanted.stem, self.wanted.extension, growing=growing)
            name = choice.file.name
            settled = utc_now() - choice.file.modified_at >= timedelta(seconds=settings.settle_seconds)
            if settled or choice.file == self._waited_for:
                return choice
            await asyncio.sleep(settings.settle_seconds)
            self._waited_for = choice.file
            files[name] = await self._look(remote, name)
            if files[name] != choice.file and time.monotonic() > patience:
                growing.add(name)

    async def _receive(self, remote: Remote, file: RemoteFile) -> None:
        if self._incoming is None:
            self._incoming = await self.intake.begin(self.wanted.account_id)
        pace = Pace(self.terms.settings.silence_seconds, self.terms.settings.floor_bytes)
        async with remote.read(self.wanted.place[0], file.name, self._incoming.size) as pieces:
            async for piece in pieces:
                if self._incoming.size + len(piece) > file.size:
                    raise _changed()  # T134: it is cut here, whatever else would come
                pace.count(len(piece))
                await self._incoming.write(piece)
        if self._incoming.size < file.size:
            raise Unavailable("The server ended the file before its end.", code="transfer_truncated")

    async def _check_unchanged(self, remote: Remote, file: RemoteFile) -> None:
        if await self._look(remote, file.name) != file:
            raise _changed()

    async def _look(self, remote: Remote, name: str) -> RemoteFile:
        """The file as it is now; one that is gone since the folder was listed has changed, so it is listed anew."""
        try:
            return await remote.look(self.wanted.place[0], name)
        except Unavailable as failure:
            if failure.code != "path_not_found":
                raise
            raise _changed() from None

    def _is_known(self, file: RemoteFile) -> bool:
        known = self.known
        same = (_normal(file.name), file.size, file.modified_at)
        return known is not None and (known.name, known.size, known.modified_at) == same


def _changed() -> Unavailable:
    return Unavailable("The file changed, or went away, while it was fetched.", code="file_changed")


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)
