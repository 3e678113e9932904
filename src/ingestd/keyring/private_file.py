"""Files of secrets: for our user only, whole and durable or not there at all (T41, T153)."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from ingestd.domain.errors import Forbidden


def read(path: Path) -> bytes:
    """Give what a file holds; FileNotFoundError, or Forbidden "key_file_open" where another user can read it."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in {0, os.geteuid()}:
            detail = f"'{path}' holds a key and belongs to another user: run this as that user."
            raise Forbidden(detail, code="key_file_open")
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
            raise Forbidden(f"A file with a key must be for our user only: chmod 600 '{path}'", code="key_file_open")
        return file.read()


def create(path: Path, content: bytes) -> None:
    """Make a file; one that is there already stays, so that processes which start at once agree on one."""
    with contextlib.suppress(FileExistsError):
        _write(path, content, os.link)


def replace(path: Path, content: bytes) -> None:
    """Put other content in the place of a file's: a process that dies leaves the one or the other."""
    _write(path, content, os.replace)


def _write(path: Path, content: bytes, put: Callable[[Path, Path], None]) -> None:
    """Write a draft, which `put` brings to its place."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        put(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
