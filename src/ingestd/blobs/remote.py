"""Blobs in object storage (S3 and its like, Google Cloud Storage, Azure); the only module that knows obstore.

A blob of up to 8 MiB is one conditional put, so that creating a name twice is refused by the server. Larger ones are
multipart uploads, which know no such condition: the name is looked up just before the last step. Names are random, so
this is a net under the trapeze, not the trapeze. What a dead process leaves of a multipart upload is invisible and
goes by the bucket's lifecycle rule "abort incomplete multipart uploads", which the operator sets.
"""

from __future__ import annotations

import contextlib
import io
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import from_url

from ingestd.blobs.backend import Stored
from ingestd.domain.errors import Conflict, Invalid, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from _typeshed import WriteableBuffer
    from obstore import WritableFile
    from obstore.store import ObjectStore

_PIECE = 8 * 1024 * 1024  # bytes; S3 takes 10,000 pieces of a file, so up to 80 GiB
_AT_ONCE = 4  # pieces of one upload on their way, so 32 MiB in memory
_CHUNK = 1024 * 1024  # bytes


class ObjectStorage:
    """A bucket or container, or a prefix of one. A backend."""

    streams = 48  # each keeps a piece

    def __init__(self, url: str) -> None:
        """Where and with which credentials, obstore reads from the environment, as the tools of each service do."""
        retries: Any = {"max_retries": 5, "retry_timeout": timedelta(seconds=30)}
        try:
            self._store: ObjectStore = from_url(url, retry_config=retries)
        except (BaseError, ValueError) as error:
            detail = "INGESTD_BLOB_URL, or a variable of its service such as AWS_REGION, is not understood."
            raise Invalid(detail, code="storage_url_invalid") from error

    def begin(self, name: str) -> MultipartUpload:
        """Start an upload."""
        return MultipartUpload(self._store, name)

    def read(self, name: str) -> BinaryIO:
        """Return the sealed object, read by one request."""
        with _storage_errors():
            try:
                chunks = obstore.get(self._store, name).stream(min_chunk_size=_CHUNK)
            except FileNotFoundError as error:
                raise NotFound("There is no such blob.") from error
        return cast("BinaryIO", _SealedObject(iter(chunks)))

    def delete(self, names: Iterable[str]) -> None:
        """Remove blobs, many by one request where the service can do that."""
        wanted = list(names)
        with _storage_errors():
            try:
                obstore.delete(self._store, wanted)
            except FileNotFoundError:  # some services stop at the first that is missing
                for name in wanted:
                    with contextlib.suppress(FileNotFoundError):
                        obstore.delete(self._store, name)

    def list(self, folder: str) -> Iterator[Stored]:
        """Go through the blobs of a folder, a thousand by one request."""
        with _storage_errors():
            for page in obstore.list(self._store, folder or None, chunk_size=1000):
                for found in page:
                    yield Stored(found["path"], found["size"], found["last_modified"])

    def check(self) -> None:
        """Raise Unavailable if the bucket cannot be listed."""
        next(self.list(""), None)

    def sweep_parts(self, older_than: datetime) -> int:  # noqa: ARG002 (the protocol's)
        """Do nothing: the bucket's lifecycle rule does it."""
        return 0


class MultipartUpload:
    """An upload in pieces, or in one if it is small.

    `write` waits for the network only when four pieces are on their way.
    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name
        self._small = bytearray()
        self._large: WritableFile | None = None

    def write(self, sealed: bytes) -> None:
        """Keep the bytes, or send them."""
        with _storage_errors():
            if self._large is None and len(self._small) + len(sealed) <= _PIECE:
                self._small += sealed
                return
            if self._large is None:
                self._large = obstore.open_writer(self._store, self._name, buffer_size=_PIECE, max_concurrency=_AT_ONCE)
                self._large.write(bytes(self._small))
                self._small.clear()
            self._large.write(sealed)

    def publish(self, *, lasting: bool = True) -> None:  # noqa: ARG002 -- the service makes all durable
        """Put the object, or complete the upload; the service answers when it is durable."""
        with _storage_errors():
            if self._large is None:
                obstore.put(self._store, self._name, bytes(self._small), mode="create", use_multipart=False)
            elif _exists(self._store, self._name):
                raise FileExistsError(self._name)
            else:
                self._large.close()

    def discard(self) -> None:
        """Drop the bytes; an upload that is not closed never becomes an object."""
        self._large = None
        self._small.clear()


class _SealedObject(io.RawIOBase):
    """The chunks of an answer as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        with _storage_errors():
            while not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    return 0
                self._rest = memoryview(chunk)
        size = min(len(view), len(self._rest))
        view[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def close(self) -> None:
        self._chunks = iter(())
        super().close()


def _exists(store: ObjectStore, name: str) -> bool:
    try:
        obstore.head(store, name)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    """Translate what obstore says. Its own texts stay in the cause: they quote the service's answer."""
    try:
        yield
    except (FileExistsError, AlreadyExistsError, PreconditionError) as error:
        raise Conflict("There is a blob of this name already.", code="blob_exists") from error
    except (BaseError, OSError) as error:
        raise Unavailable("The blob store failed.", code="storage_failed") from error
