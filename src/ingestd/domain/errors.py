"""The errors of the service, as one tree.

    IngestdError
    ├── NotFound       the caller names something that is not there, or not theirs
    ├── Conflict       the state or a uniqueness rule forbids it
    ├── Invalid        the request is well formed but breaks a rule; carries the problems, each with a JSON pointer
    ├── Forbidden      the caller may not do this
    ├── Unavailable    the world (a server, a disk, a network) did not answer; worth a retry
    └── FileRefused    a whole file is refused; final, never retried

A rejected *row* is not an error: it is a value (`domain.rejection`). No error knows an HTTP status: each door
translates the tree in one table.
"""

from __future__ import annotations

from dataclasses import dataclass


class IngestdError(Exception):
    """Something went wrong."""

    code: str = "internal"

    def __init__(self, detail: str | None = None, *, code: str | None = None) -> None:
        self.detail = detail or (type(self).__doc__ or "").split("\n", maxsplit=1)[0]
        if code is not None:
            self.code = code
        super().__init__(self.detail)


class NotFound(IngestdError):
    """There is no such thing, or it belongs to another account."""

    code = "not_found"


class Conflict(IngestdError):
    """The present state does not allow this."""

    code = "conflict"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request or a manifest: where (a JSON pointer), a stable code, and a sentence."""

    pointer: str
    code: str
    detail: str


class Invalid(IngestdError):
    """The request breaks a rule."""

    code = "invalid"

    def __init__(
        self, detail: str | None = None, *, code: str | None = None, problems: tuple[Problem, ...] = ()
    ) -> None:
        super().__init__(detail, code=code)
        self.problems = problems


class Forbidden(IngestdError):
    """The caller may not do this."""

    code = "forbidden"


class Unavailable(IngestdError):
    """Something the service depends on did not answer."""

    code = "unavailable"


class FileRefused(IngestdError):
    """The file is refused as a whole.

    `code` is a key of `rejection.FILE_REASONS`; `detail` says what was wrong, where, and what to do, without any
    cell's value.
    """

    code = "file_unreadable"
