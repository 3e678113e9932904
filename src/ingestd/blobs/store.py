"""The blob store: names, sealing, and writers that leave nothing behind unless they commit."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from ingestd.blobs.local import LocalFolder
from ingestd.blobs.remote import ObjectStorage
from ingestd.domain.errors import Invalid, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from _typeshed import ReadableBuffer

    from ingestd.blobs.backend import Backend, Stored, Upload
    from ingestd.keyring import AccountKeys, Sealer

_NAME = re.compile(r"[a-z0-9_-][a-z0-9_.-]*(/[a-z0-9_-][a-z0-9_.-]*)*")
_REMOTE = {"s3", "gs", "az"}
_PIECE = 1024 * 1024  # bytes read at a time on the way to a range, or to another store


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What was stored: the size in bytes and the hash (hexadecimal) of the plain bytes, empty where none was taken."""

    name: str
    size: int
    sha256: str


class BlobStore:
    """Blobs of one backend, each sealed with its account's keys and bound to its name.

    Synchronous, for worker processes and `asyncio.to_thread`. Names are given by the service, never by a client: up
    to 200 characters of `a-z 0-9 _ . -` in parts joined by `/`, none of which starts with a dot; others are Invalid
    "blob_name_invalid". Everywhere: NotFound; Unavailable "storage_full" or "storage_failed".
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def streams(self) -> int:
        """How many blobs one process may be writing without taking much memory."""
        return self._backend.streams

    def create(self, name: str, keys: AccountKeys, *, lasting: bool = True, hashed: bool = True) -> BlobWriter:
        """Start a new blob. A name can be used once: the second `commit` is Conflict "blob_exists".

        One that is not `lasting` need not survive its process: nobody waits for the disk. Of one that is not `hashed`
        nobody will ask the hash.
        """
        sealer = keys.sealer(_checked(name))
        return BlobWriter(name, sealer, self._backend.begin(name), lasting=lasting, hashed=hashed)

    def open(self, name: str, keys: AccountKeys, *, start: int = 0) -> BinaryIO:
        """Return the plain bytes from `start` on, to be read once and in order (`read`, `readinto`; no `seek`).

        The bytes before `start` are read and dropped, at 1 to 2 GB/s: they must be opened to be skipped.
        SealBroken, at the opening or at any read: other keys, another blob's bytes, changed or missing bytes.
        """
        file = keys.open_stream(self._backend.read(_checked(name)), name)
        try:
            while start > 0 and (skipped := file.read(min(start, _PIECE))):
                start -= len(skipped)
        except BaseException:
            file.close()
            raise
        return file

    def delete(self, names: Iterable[str]) -> None:
        """Remove blobs; those that are not there are fine."""
        self._backend.delete([_checked(name) for name in names])

    def list(self, folder: str = "") -> Iterator[Stored]:
        """Go through the blobs under a folder (`parts/0198…`, without a final slash), or all of them, in no order."""
        return self._backend.list(_checked(folder) if folder else "")

    def copy_to(self, other: BlobStore) -> int:
        """Copy every blob to another store, sealed as it is and durable there; return how many."""
        copied = 0
        for stored in self.list():
            with contextlib.suppress(NotFound):  # removed since
                self._copy(stored.name, other)
                copied += 1
        return copied

    def check(self) -> None:
        """Raise Unavailable if blobs cannot be stored now (for readiness)."""
        self._backend.check()

    def sweep_parts(self, older_than: datetime) -> int:
        """Remove what dead processes left of uploads last written to before the time; return how many."""
        return self._backend.sweep_parts(older_than)

    def _copy(self, name: str, other: BlobStore) -> None:
        with contextlib.closing(self._backend.read(name)) as sealed:
            upload = other._backend.begin(name)
            try:
                while piece := sealed.read(_PIECE):
                    upload.write(piece)
                upload.publish()
            except BaseException:
                upload.discard()
                raise


class BlobWriter(io.RawIOBase):
    """A blob being written: a file, and `commit`. Closed, dropped or killed before that, it leaves nothing visible.

    Being a file it can be given to whatever writes files. `write` is cheap (seal, hash, hand to the system), so an
    event loop may call it on a local store; on object storage it may wait for the network. `commit` waits for the
    disk. One thread at a time.
    """

    def __init__(self, name: str, sealer: Sealer, upload: Upload, *, lasting: bool, hashed: bool) -> None:
        self._name = name
        self._lasting = lasting
        self._sealer = sealer
        self._upload = upload
        self._hash = hashlib.sha256() if hashed else None
        self._size = 0
        self._committed = False

    def writable(self) -> bool:
        """Tell that this is a file for writing."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Add bytes, all of them. After an error the blob is lost."""
        if self.closed:
            raise ValueError("The blob is closed.")
        size = memoryview(data).nbytes
        try:
            if self._hash:
                self._hash.update(data)
            self._pass_on(self._sealer.update(data))
        except BaseException:
            self.abort()
            raise
        self._size += size
        return size

    def commit(self) -> BlobInfo:
        """Make the blob durable and visible; when this returns it survives `kill -9` and, if lasting, power loss (P1).

        After an error the blob is lost: nothing is tried again on the same file.
        """
        if self.closed:
            raise ValueError("The blob is closed.")
        try:
            self._pass_on(self._sealer.finish())
            self._upload.publish(lasting=self._lasting)
        except BaseException:
            self.abort()
            raise
        self._committed = True
        self.close()
        return BlobInfo(self._name, self._size, self._hash.hexdigest() if self._hash else "")

    def abort(self) -> None:
        """Forget the blob; no effect after `commit`."""
        self.close()

    def close(self) -> None:
        """Forget the blob unless it was committed."""
        if not self.closed and not self._committed:
            self._upload.discard()
        super().close()

    def _pass_on(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._upload.write(piece)


def open_store(url: str | Path) -> BlobStore:
    """Return the store at a path or URL: `file:///…`, `s3://bucket/prefix`, `gs://…`, `az://…`.

    Endpoints and credentials come from the environment: `AWS_…`, `GOOGLE_…`, `AZURE_…`. Invalid "storage_url_invalid".
    """
    if isinstance(url, Path):
        return BlobStore(LocalFolder(url))
    parts = urlsplit(url)
    if parts.scheme in _REMOTE:
        return BlobStore(ObjectStorage(url))
    if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
        raise Invalid("INGESTD_BLOB_URL is file:///folder, s3://…, gs://… or az://….", code="storage_url_invalid")
    return BlobStore(LocalFolder(Path(unquote(parts.path))))


def _checked(name: str) -> str:
    if len(name) > 200 or not _NAME.fullmatch(name):
        raise Invalid("This is no name for a blob.", code="blob_name_invalid")
    return name
