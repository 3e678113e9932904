"""Sealed streams of any length: Tink's streaming AEAD, without its ways of losing errors and of ending by accident."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, cast

import tink
from tink import streaming_aead

from ingestd.domain.errors import IngestdError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

streaming_aead.register()

_BUFFER = 128 * 1024  # bytes; the pieces in which Tink moves ciphertext. Larger buffers were no faster


class SealBroken(IngestdError):
    """Sealed data does not open: it was changed, cut short, or belongs to another place or account."""

    code = "seal_broken"


def open_stream(primitive: streaming_aead.StreamingAead, source: BinaryIO, context: str) -> BinaryIO:
    """Return the plain bytes of a sealed stream, to be read once and in order; closing it closes the source.

    Every byte has been authenticated before it is handed out; a stream cut short raises SealBroken instead of ending.
    Errors of the source come through as they are.
    """
    return cast("BinaryIO", io.BufferedReader(_Opened(primitive, source, context), _BUFFER))


class Sealer:
    """Seals one stream piece by piece: the caller writes what `update` and, once, `finish` return.

    Tink would rather write to a file object itself, but loses the file's own errors on the way, and completes the
    stream when it is dropped. Here a stream is complete only if `finish` was called.
    """

    def __init__(self, primitive: streaming_aead.StreamingAead, context: str) -> None:
        self._sealed = _Pieces()
        raw = primitive.new_encrypting_stream(self._sealed, context.encode()).detach()
        self._plain = io.BufferedWriter(raw, _BUFFER)

    def update(self, plain: ReadableBuffer) -> list[bytes]:
        """Take plain bytes; return the sealed pieces that are ready, often none."""
        self._plain.write(plain)
        return self._sealed.take()

    def finish(self) -> list[bytes]:
        """Return the last sealed pieces, which mark the end of the stream."""
        self._plain.close()
        return self._sealed.take()


class _Pieces(io.RawIOBase):
    """A file for Tink to write to: keeps the pieces until they are taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: ReadableBuffer) -> int:
        self._pieces.append(bytes(piece))
        return len(self._pieces[-1])

    def take(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces


class _Source:
    """A file for Tink to read from: remembers the file's own error, which Tink would turn into one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: BaseException | None = None
        self.close = file.close
        self.readable = file.readable

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except BaseException as failure:
            self.failure = failure
            raise


class _Opened(io.RawIOBase):
    """The plain side of a sealed stream."""

    def __init__(self, primitive: streaming_aead.StreamingAead, file: BinaryIO, context: str) -> None:
        self._source = _Source(file)
        self._plain = primitive.new_decrypting_stream(self._source, context.encode()).detach()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        try:
            plain = self._plain.read(len(view))
        except tink.TinkError:
            raise self._source.failure or SealBroken() from None
        view[: len(plain)] = plain
        return len(plain)

    def close(self) -> None:
        self._plain.close()
        super().close()
