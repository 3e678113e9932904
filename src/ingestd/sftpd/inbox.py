"""An SFTP session: one flat folder, in which an account's uploads wait for their manifests (D18, T20 to T28).

Clients put, list, stat, rename and remove; nothing can be read back. Every open makes a new version; a file counts
from its CLOSE on. Putting or renaming to a name that ends in `.manifest`, in any case of letters, submits the manifest.

asyncssh runs the requests of a session one after the other.
"""

from __future__ import annotations

import functools
import posixpath
import re
import stat
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Concatenate, Final, NoReturn, ParamSpec, TypeVar, cast

from asyncssh import (
    FXF_APPEND,
    FXF_CREAT,
    FXF_EXCL,
    FXF_READ,
    FXF_WRITE,
    SFTPAttrs,
    SFTPError,
    SFTPFailure,
    SFTPName,
    SFTPNoSuchFile,
    SFTPOpUnsupported,
    SFTPPermissionDenied,
    SFTPServer,
    SSHServerChannel,
)
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.blobs.store import BlobInfo
from ingestd.domain.errors import Conflict, Forbidden, IngestdError, Invalid, NotFound, Unavailable
from ingestd.domain.file_name import safe_name
from ingestd.domain.ingestion import Channel
from ingestd.domain.manifest import MAX_BYTES, is_manifest
from ingestd.domain.submission import Actor
from ingestd.ingest.intake import Intake, add_file
from ingestd.ingest.manifests import text_of
from ingestd.ingest.pairing import Arrival, submit_manifest
from ingestd.ingest.tell import tell_received
from ingestd.settings import SftpSettings
from ingestd.sftpd.upload import Pace, Upload
from ingestd.store import accounts, files, import_keys, manifests, usage
from ingestd.store.engine import transaction, utc_now
from ingestd.store.files import File
from ingestd.store.import_keys import ImportKey
from ingestd.telemetry import logger

STATUS: Final[dict[type[IngestdError], Callable[[str], SFTPError]]] = {
    NotFound: SFTPNoSuchFile,
    Forbidden: SFTPPermissionDenied,
}
"""What an error is in SFTP; all others are FX_FAILURE."""

LISTED_AT_ONCE: Final = 500
"""Files that are read at a time for a listing: an account may have any number of them."""

_HERE: Final = re.compile(rb"/?(?:\./)*")
"""How a path may begin that leads nowhere but to the folder: clients write `/x.csv`, `./x.csv` and `/./x.csv`."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _answered(
    operation: Callable[Concatenate[Inbox, _P], Awaitable[_T]],
) -> Callable[Concatenate[Inbox, _P], Coroutine[Any, Any, _T]]:
    """Tell the client of an error by SFTP's codes; what nobody foresaw is logged, and told without its words."""

    @functools.wraps(operation)
    async def answer(self: Inbox, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        self._touch()
        try:
            return await operation(self, *args, **kwargs)
        except IngestdError as error:
            self._log.info("SFTP request refused", operation=operation.__name__, code=error.code)
            raise STATUS.get(type(error), SFTPFailure)(error.detail) from None
        except SFTPError:
            raise
        except Exception:  # noqa: BLE001 -- the door stays open
            self._log.exception("SFTP request failed", operation=operation.__name__)
            raise SFTPFailure("The server failed; try again later.") from None

    return answer


class Inbox(SFTPServer):
    """The session of a client who logged in with `key`; calls `touch` at each request."""

    def __init__(
        self,
        chan: SSHServerChannel[bytes],
        intake: Intake,
        key: ImportKey,
        *,
        settings: SftpSettings,
        touch: Callable[[], None],
    ) -> None:
        super().__init__(chan)
        self._intake = intake
        self._key = key
        self._settings = settings
        self._touch = touch
        self._actor = Actor("import_key", key.id, key.name)
        self._since = utc_now()
        self._uploads: set[Upload] = set()
        self._listings: weakref.WeakSet[AsyncIterator[SFTPName]] = weakref.WeakSet()  # asyncssh tells of no end of one
        self._log = logger(__name__).bind(account=key.account_id, import_key=key.id)

    @_answered
    async def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> Upload:  # noqa: ARG002 -- asyncssh's names
        """Begin a new version of a file."""
        if pflags & FXF_READ or not pflags & FXF_WRITE:
            raise Forbidden("Nothing can be read back.", code="read_refused")
        if pflags & FXF_APPEND or not pflags & FXF_CREAT:
            raise Forbidden("Files are written whole; nothing can be changed.", code="change_refused")
        name = _new_name(path)
        self._check_handles()
        async with self._begin() as session:
            if pflags & FXF_EXCL and await files.find_available(session, self._key.account_id, name):
                raise Conflict("There is a file of this name.", code="file_exists")
        incoming = await self._intake.begin(self._key.account_id)
        kept = MAX_BYTES + 1 if is_manifest(name) else None  # enough to see that a manifest is too large
        limit, pace = self._intake.limits.file_bytes, Pace.of(self._settings)
        upload = Upload(name, incoming, limit=limit, pace=pace, kept=kept)
        self._uploads.add(upload)
        return upload

    @_answered
    async def write(self, file_obj: object, offset: int, data: bytes) -> int:
        """Take a piece of a file."""
        await cast("Upload", file_obj).write(offset, data)
        return len(data)

    def close(self, file_obj: object) -> Awaitable[None] | None:
        """Publish on the client's own CLOSE; forget an upload that was dropped (T43).

        asyncssh calls this for a dropped transfer too, while it deals with the exception that ended the session. A
        plain function sees that exception; a coroutine's answer to the client waits until the file is durable.
        """
        upload = cast("Upload", file_obj)
        self._uploads.discard(upload)
        if sys.exception() is not None:
            upload.abort()
            self._log.info("SFTP upload dropped", bytes=upload.size)
            return None
        return self._publish(upload)

    def end_idle_uploads(self) -> None:
        """Forget the uploads that the client has left alone for too long (T37); their CLOSE is refused."""
        for upload in self._uploads:
            upload.end_if_idle()

    def exit(self) -> None:
        """Tell the client that the session ended well: without an exit status `scp` reports a failure."""
        self.channel.exit(0)

    def end(self) -> None:
        """Forget what was left open."""
        while self._uploads:
            self._uploads.pop().abort()
        self._log.info("SFTP session ended")

    def read(self, file_obj: object, offset: int, size: int) -> NoReturn:  # noqa: ARG002
        """Refuse: a stolen key must not give files away (T28)."""
        raise SFTPPermissionDenied("Nothing can be read back.")

    @_answered
    async def rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Give the newest upload of a name another one; a manifest counts once it has its name."""
        old, new = _known_name(oldpath), _new_name(newpath)
        if is_manifest(new):
            await self._submit_waiting(old, new)
            return
        async with self._begin() as session:
            file = await self._waiting(session, old)
            await files.rename(session, file, new, now=utc_now())
            await tell_received(session, file)
        self._log.info("File renamed")

    posix_rename = rename

    @_answered
    async def remove(self, path: bytes) -> None:
        """Remove the uploads of a name that no manifest has taken."""
        async with self._begin() as session:
            removed = await files.remove(session, self._key.account_id, _known_name(path))
            if not removed:
                raise NotFound("No upload of this name waits for a manifest.")
        self._intake.forget(removed)
        self._log.info("File removed")

    def scandir(self, path: bytes) -> AsyncIterator[SFTPName]:
        """List the files that wait for a manifest."""
        if not _is_folder(path):
            raise SFTPNoSuchFile("There is one folder only.")
        try:
            self._check_handles()
        except Unavailable as refusal:
            raise SFTPFailure(refusal.detail) from None
        listing = self._listing()
        self._listings.add(listing)
        return listing

    @_answered
    async def stat(self, path: bytes) -> SFTPAttrs:
        """Tell size and time of a file or a manifest; of a taken file while the session lasts that may have put it."""
        if _is_folder(path):
            return _attrs(0, self._since, kind=stat.S_IFDIR | stat.S_IXUSR)
        name = _known_name(path)
        async with self._begin() as session:
            file = await files.find_shown(session, self._key.account_id, name, since=self._since)
            if file is not None:
                return _attrs(file.size_bytes, file.received_at)
            manifest = await manifests.find(session, self._key.account_id, name)
            if manifest is not None:
                return _attrs(manifest.size_bytes, manifest.created_at)
        raise NotFound("There is no such file.")

    lstat = stat

    def fstat(self, file_obj: object) -> SFTPAttrs:
        """Tell how much of an upload has been received."""
        return _attrs(cast("Upload", file_obj).size, self._since)

    def setstat(self, path: bytes, attrs: SFTPAttrs) -> None:  # noqa: ARG002
        """Ignore mode, owner and times, which many clients set after an upload (T21); refuse a size."""
        if attrs.size is not None:
            raise SFTPPermissionDenied("Files are written whole; nothing can be changed.")

    def fsetstat(self, file_obj: object, attrs: SFTPAttrs) -> None:
        """Ignore mode, owner and times; refuse a size other than what has been received."""
        if attrs.size != cast("Upload", file_obj).size:
            self.setstat(b"", attrs)

    def realpath(self, path: bytes) -> bytes:
        """Write a path from the folder on, without looking whether it is there."""
        return b"/" + posixpath.normpath(posixpath.join(b"/", path)).lstrip(b"/")

    def fsync(self, file_obj: object) -> None:
        """Do nothing: CLOSE makes a file durable before it is answered."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:  # noqa: ARG002
        raise SFTPOpUnsupported("This server does not do that.")

    open56 = mkdir = rmdir = readlink = symlink = link = lock = unlock = _refuse
    lsetstat = statvfs = fstatvfs = _refuse

    @_answered
    async def _publish(self, upload: Upload) -> None:
        """Make an upload a file, or submit it as a manifest; the client hears of it when all is durable (P1)."""
        try:
            async with self._begin():  # nothing becomes durable for a key that was revoked
                pass
            blob = await upload.commit()
            if is_manifest(upload.name):
                text = await text_of(self._intake, self._key.account_id, blob.name)
                async with self._begin() as session:
                    await self._submit(session, upload.name, text, blob)
                return
            async with self._begin() as session:
                file = await add_file(
                    session, upload.incoming, blob, name=upload.name, actor=self._actor, now=utc_now()
                )
            self._log.info("File received", file=file.id, bytes=file.size_bytes)
        finally:
            upload.abort()

    async def _submit_waiting(self, old: str, new: str) -> None:
        """Submit a file as the manifest that its new name makes it; the manifest takes over its blob.

        Invalid where it is larger than any manifest: what is no file any more does not count against the quota (T42).
        """
        async with self._begin() as session:
            waiting = await self._waiting(session, old)
        if waiting.size_bytes > MAX_BYTES:
            raise Invalid(f"A manifest may have {MAX_BYTES} bytes.", code="manifest_too_large")
        text = await text_of(self._intake, self._key.account_id, waiting.blob)
        async with self._begin() as session:
            await accounts.lock(session, self._key.account_id)
            file = await self._waiting(session, old)
            if file.id != waiting.id:
                raise Conflict("A newer upload of this name came meanwhile.")
            await files.rename(session, file, new, now=utc_now())
            await session.delete(file)
            await usage.give_back(session, file.account_id, file.size_bytes)
            await self._submit(session, new, text, BlobInfo(file.blob, file.size_bytes, file.sha256))

    async def _submit(self, session: AsyncSession, name: str, text: bytes, blob: BlobInfo) -> None:
        arrival = Arrival(Channel.SFTP, self._key.account_id, name, text, blob, self._actor)
        ingestion = await submit_manifest(session, self._intake, arrival, now=utc_now())
        self._log.info("Manifest received", ingestion=ingestion)

    def _check_handles(self) -> None:
        """Raise Unavailable where the session has as many files and folders open as it may (T29)."""
        if len(self._uploads) + len(self._listings) >= self._settings.handles_per_session:
            detail = f"At most {self._settings.handles_per_session} files can be open at once."
            raise Unavailable(detail, code="too_many_handles")

    async def _listing(self) -> AsyncIterator[SFTPName]:
        now, last = utc_now(), ""
        while some := await self._some_waiting(last):
            for file in some:
                attrs = _attrs(file.size_bytes, file.received_at)
                yield SFTPName(file.name.encode(), _long_name(file, now), attrs)
            last = some[-1].name

    @_answered
    async def _some_waiting(self, after: str) -> list[File]:
        async with self._begin() as session:
            return await files.listing(session, self._key.account_id, after=after, at_most=LISTED_AT_ONCE)

    async def _waiting(self, session: AsyncSession, name: str) -> File:
        file = await files.find_available(session, self._key.account_id, name)
        if file is None:
            raise NotFound("No upload of this name waits for a manifest.")
        return file

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncSession]:
        """Begin a transaction, or raise Forbidden where the key no longer opens this door (T39)."""
        async with transaction(self._intake.sessions) as session:
            key = await import_keys.find_admitted(session, self._key.account_id, self._key.fingerprint)
            if key is None or key.id != self._key.id:
                raise Forbidden("The key is no longer accepted.", code="key_revoked")
            yield session


def _is_folder(path: bytes) -> bool:
    return _HERE.sub(b"", path, count=1) in {b"", b"."}


def _new_name(path: bytes) -> str:
    """The name that a path gives to a file, or raise Forbidden (T20)."""
    name = _safe_name(path)
    if name is None:
        raise Forbidden(
            "A name has up to 200 letters, digits, spaces and _ . ( ) - and begins with a letter, a digit or _.",
            code="name_refused",
        )
    return name


def _known_name(path: bytes) -> str:
    """The name that a path may stand for, or raise NotFound."""
    name = _safe_name(path)
    if name is None:
        raise NotFound("There is no such file.")
    return name


def _safe_name(path: bytes) -> str | None:
    try:
        return safe_name(_HERE.sub(b"", path, count=1).decode())
    except UnicodeDecodeError:
        return None


def _attrs(size: int, at: datetime, *, kind: int = stat.S_IFREG) -> SFTPAttrs:
    seconds = int(at.timestamp())
    mode = kind | stat.S_IRUSR | stat.S_IWUSR
    return SFTPAttrs(size=size, permissions=mode, atime=seconds, mtime=seconds)


def _long_name(file: File, now: datetime) -> bytes:
    """One line of `ls -l`; times are UTC."""
    recent = now - timedelta(days=182) < file.received_at
    day = file.received_at.strftime("%b %d %H:%M" if recent else "%b %d  %Y")
    return f"-rw------- 1 - - {file.size_bytes:>12} {day} {file.name}".encode()
