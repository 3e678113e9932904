"""Blobs in a local folder, written by hand: obstore's local store does not fsync, and its files are open to others.

The folder is flat: `/` in a name becomes `+` in the file's. So one fsync of one folder makes a new name durable, and
no empty folders are left behind. Parts begin with a dot, which no name does.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, cast

from ingestd.blobs.backend import Stored
from ingestd.domain.errors import Conflict, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_PART = ".part-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class LocalFolder:
    """A folder of sealed files, 0600 each; made 0700 if it is not there. A backend."""

    streams = 256

    def __init__(self, root: Path) -> None:
        with _storage_errors():
            if not root.is_dir():
                root.mkdir(mode=0o700, parents=True, exist_ok=True)
                _sync_folder(root.parent)
        self._root = root

    def begin(self, name: str) -> PartFile:
        """Start an upload."""
        return PartFile(self._root, self._path(name))

    def read(self, name: str) -> BinaryIO:
        """Return the sealed file."""
        with _storage_errors():
            try:
                return cast("BinaryIO", _SealedFile(self._path(name)))
            except FileNotFoundError as error:
                raise NotFound("There is no such blob.") from error

    def delete(self, names: Iterable[str]) -> None:
        """Remove blobs. After a power cut a removed blob may be back, for the next sweep to find."""
        with _storage_errors():
            for name in names:
                self._path(name).unlink(missing_ok=True)

    def list(self, folder: str) -> Iterator[Stored]:
        """Go through the blobs of a folder, in no order."""
        start = f"{folder}+".replace("/", "+") if folder else ""
        for entry in self._entries():
            if entry.name.startswith(start) and not entry.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # removed since
                    status = entry.stat()
                    modified = datetime.fromtimestamp(status.st_mtime, UTC)
                    yield Stored(entry.name.replace("+", "/"), status.st_size, modified)

    def check(self) -> None:
        """Raise Unavailable if no file can be made in the folder."""
        self.begin("check").discard()

    def sweep_parts(self, older_than: datetime) -> int:
        """Remove the parts last written before the time; return how many."""
        removed = 0
        for entry in self._entries():
            if entry.name.startswith(_PART):
                with contextlib.suppress(FileNotFoundError):  # finished since
                    if entry.stat().st_mtime < older_than.timestamp():
                        (self._root / entry.name).unlink()
                        removed += 1
        return removed

    def _path(self, name: str) -> Path:
        return self._root / name.replace("/", "+")

    def _entries(self) -> tuple[os.DirEntry[str], ...]:
        with _storage_errors(), os.scandir(self._root) as entries:
            return tuple(entries)


class PartFile:
    """An upload to a file of its own, linked to its name when it is complete and on the disk (promise P1)."""

    def __init__(self, root: Path, final: Path) -> None:
        self._root = root
        self._final = final
        self._part = root / f"{_PART}{secrets.token_hex(16)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _storage_errors():
            self._file = io.FileIO(self._part, "wb", opener=lambda path, _: os.open(path, flags, 0o600))

    def write(self, sealed: bytes) -> None:
        """Hand the bytes to the operating system."""
        rest = memoryview(sealed)
        with _storage_errors():
            while rest:
                rest = rest[self._file.write(rest) :]

    def publish(self, *, lasting: bool = True) -> None:
        """Sync the file, link it to its name without replacing another, sync the folder; not where it need not last.

        A failed sync is final: the system may drop the pages and report the next one as good, so it is never tried
        again.
        """
        with _storage_errors():
            if lasting:
                os.fsync(self._file.fileno())
            self._file.close()
            os.link(self._part, self._final)
            try:
                self._part.unlink()
                if lasting:
                    _sync_folder(self._root)
            except OSError:
                self._final.unlink(missing_ok=True)
                raise

    def discard(self) -> None:
        """Remove the part."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._part.unlink()


class _SealedFile(io.FileIO):
    """A file whose read errors are the store's."""

    def read(self, size: int | None = -1) -> bytes:
        with _storage_errors():
            return super().read(size) or b""


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    """Translate what the operating system says."""
    try:
        yield
    except FileExistsError as error:
        raise Conflict("There is a blob of this name already.", code="blob_exists") from error
    except OSError as error:
        if error.errno in _FULL:
            raise Unavailable("The blob store is full.", code="storage_full") from error
        raise Unavailable("The blob store failed.", code="storage_failed") from error
