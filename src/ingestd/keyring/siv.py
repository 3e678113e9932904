"""AES-SIV (RFC 5297) over many texts of one length at once, byte for byte what Tink makes of each.

Tink seals one text a call, most of which is the call. Here a whole column goes through AES in a few calls, its texts
side by side; the composition around AES is the RFC's, with one associated text.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Bytes = npt.NDArray[np.uint8]

BLOCK: Final = 16
_END: Final = 0x80
"""What ends a text that does not fill its last block."""


class Siv:
    """One key: its first half for the tag, the other for the text."""

    def __init__(self, key: bytes) -> None:
        halves = key[: len(key) // 2], key[len(key) // 2 :]
        self._tags, self._texts = (Cipher(algorithms.AES(half), modes.ECB()) for half in halves)  # noqa: S305 -- of single blocks SIV is built
        self._whole = _doubled(_through(self._tags, np.zeros((1, BLOCK), np.uint8)))
        self._padded = _doubled(self._whole)

    def seal(self, associated: bytes, texts: Bytes) -> Bytes:
        """Seal the rows of a matrix, one text each and not empty: each row's tag of 16 bytes, then the text sealed."""
        count, size = texts.shape
        seed = _doubled(self._mac(np.zeros((1, BLOCK), np.uint8))) ^ self._mac(_row(associated))
        if size >= BLOCK:
            bound = texts.copy()
            bound[:, -BLOCK:] ^= seed
        else:
            bound = _ended(texts) ^ _doubled(seed)
        tags = self._mac(bound)
        first = tags.copy()
        first[:, (8, 12)] &= 0x7F  # so that counting on never carries out of the last four bytes
        counters = np.repeat(first[:, None, :], -(-size // BLOCK), axis=1)
        counters.view(">u4")[:, :, 3] += np.arange(counters.shape[1], dtype=np.uint32)
        stream = _through(self._texts, counters).reshape(count, -1)
        return np.hstack([tags, texts ^ stream[:, :size]])

    def _mac(self, texts: Bytes) -> Bytes:
        """CMAC (RFC 4493) of each row."""
        fills = texts.shape[1] > 0 and texts.shape[1] % BLOCK == 0
        blocks = (texts.copy() if fills else _ended(texts)).reshape(len(texts), -1, BLOCK)
        blocks[:, -1] ^= (self._whole if fills else self._padded)[0]
        state = np.zeros((len(texts), BLOCK), np.uint8)
        for place in range(blocks.shape[1]):
            state = _through(self._tags, state ^ blocks[:, place])
        return state


def _through(cipher: Cipher[modes.ECB], blocks: Bytes) -> Bytes:
    """Blocks through AES, each by itself."""
    return np.frombuffer(cipher.encryptor().update(blocks.tobytes()), np.uint8).reshape(blocks.shape)


def _row(text: bytes) -> Bytes:
    return np.frombuffer(text, np.uint8).reshape(1, -1)


def _ended(texts: Bytes) -> Bytes:
    """Texts with their end marked, in whole blocks."""
    count, size = texts.shape
    blocks = np.zeros((count, BLOCK * (size // BLOCK + 1)), np.uint8)
    blocks[:, :size] = texts
    blocks[:, size] = _END
    return blocks


def _doubled(block: Bytes) -> Bytes:
    """Twice the block, in the field of 2 ** 128 elements."""
    number = int.from_bytes(block.tobytes()) << 1
    reduced = (number & (1 << 128) - 1) ^ (0x87 if number >> 128 else 0)
    return _row(reduced.to_bytes(BLOCK))
