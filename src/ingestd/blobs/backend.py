"""What the blob store wants of a place that keeps sealed bytes; there are two: a local folder and object storage.

Both raise NotFound, Conflict "blob_exists" and Unavailable "storage_full" or "storage_failed", and nothing of their
own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob as the backend lists it: its name, its sealed size in bytes, and when it was stored."""

    name: str
    size: int
    modified: datetime


class Upload(Protocol):
    """Sealed bytes on their way in. Invisible until `publish`; after any error only `discard` may follow."""

    def write(self, sealed: bytes) -> None:
        """Add bytes."""

    def publish(self, *, lasting: bool = True) -> None:
        """Make the bytes durable, then visible under their name, unless the name is taken (Conflict).

        What is not `lasting` may be gone after a power cut, where that is faster.
        """

    def discard(self) -> None:
        """Forget the bytes; never raises."""


class Backend(Protocol):
    """A place for sealed bytes. Safe to use from several threads, processes and machines at once.

    `streams` is how many uploads of one process may be under way without taking much memory.
    """

    streams: int

    def begin(self, name: str) -> Upload:
        """Start an upload."""

    def read(self, name: str) -> BinaryIO:
        """Return the sealed bytes as a file for `read` alone."""

    def delete(self, names: Iterable[str]) -> None:
        """Remove blobs; those that are not there are fine."""

    def list(self, folder: str) -> Iterator[Stored]:
        """Go through the blobs of a folder and its folders; of all folders if it is empty."""

    def check(self) -> None:
        """Raise Unavailable if blobs cannot be stored now."""

    def sweep_parts(self, older_than: datetime) -> int:
        """Remove what uploads left that died before the time; return how many."""
