"""Logs, set up once.

A log line is one JSON object on stderr (or one coloured line on a terminal): ids, counts and codes, never personal
data. `logger(__name__)` gives every module its logger; the words of an event are constant, what varies is a field.
`context(ingestion=...)` adds fields to every line of the task it encloses. What libraries log goes the same way.

A field's value is cleaned before anything is written (P9, T101, T102):

- a field named like a secret, and a text shaped like one, is masked;
- text loses its control characters and everything beyond `TEXT_LIMIT`;
- an object that is no plain value is named by its type, never shown;
- an exception is shown by type, code and the places it passed through. Its message is shown for our own errors only,
  since a database's or a parser's message quotes what it stumbled over.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final, TextIO, cast
from uuid import UUID

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.typing import EventDict, Processor

from ingestd.domain.errors import IngestdError

TEXT_LIMIT: Final = 500
ITEM_LIMIT: Final = 50
FRAME_LIMIT: Final = 20
DEPTH_LIMIT: Final = 4

MASK: Final = "***"
SECRET_NAME: Final = re.compile(
    "password|passphrase|secret|token|authorization|cookie|credential|private_key|api_key|keyset|dsn|database_url",
    re.IGNORECASE,
)
SECRET_SHAPE: Final = re.compile(
    r"(?P<key>\bisk_[0-9a-z]{26}_)\S+"  # an API key of ours: its id may be seen
    r"|(?P<webhook>\bwhsec_)\S+"
    r"|(?P<url>://[^\s/@:]*:)[^\s/@]+(?=@)"  # the password in a URL
    r"|(?P<pem>-----BEGIN [A-Z ]*PRIVATE KEY-----).*",
    re.DOTALL,
)

context = structlog.contextvars.bound_contextvars


def logger(name: str) -> BoundLogger:
    """Give the logger of a module. Safe at import: before `configure` only warnings are seen, cleaned as well."""
    return logger_of(logging.getLogger(name))


def logger_of(target: logging.Logger) -> BoundLogger:
    """Give a logger with fields that writes to a logger of the standard library."""
    processors = [structlog.stdlib.filter_by_level, *COMMON, ProcessorFormatter.wrap_for_formatter]
    wrapped = structlog.wrap_logger(target, processors, wrapper_class=BoundLogger, cache_logger_on_first_use=True)
    return cast("BoundLogger", wrapped)


def configure(*, level: str = "INFO", pretty: bool | None = None, stream: TextIO | None = None) -> None:
    """Send our log lines of `level` and above, and the warnings of libraries, to `stream` (stderr); may be repeated.

    `pretty` is for people and is the default on a terminal; otherwise each line is a JSON object. Uncaught exceptions
    are logged too, so that no interpreter prints their messages.
    """
    stream = stream or sys.stderr
    handler = output(stream, pretty=stream.isatty() if pretty is None else pretty)
    root, dbos = logging.getLogger(), logging.getLogger("dbos")
    root.setLevel(logging.WARNING)
    logging.getLogger("ingestd").setLevel(level)
    dbos.propagate = False
    for owner in (root, dbos):  # DBOS would add a handler of its own if it found none on its logger
        for old in [each for each in owner.handlers if isinstance(each, _Output)]:
            owner.removeHandler(old)
        owner.addHandler(handler)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def output(stream: TextIO, *, pretty: bool) -> logging.Handler:
    """Give the handler that writes cleaned lines, of our loggers and of any other, to `stream`."""
    handler = _Output(stream)
    handler.setFormatter(
        ProcessorFormatter(
            processors=[ProcessorFormatter.remove_processors_meta, _renderer(pretty=pretty)],
            foreign_pre_chain=[_constant_words, *COMMON],
        )
    )
    return handler


def describe(error: BaseException) -> dict[str, Any]:
    """Tell what went wrong without quoting data: type, code, where, and the same for its causes.

    `code` is ours, or an SQLSTATE, or the name of an errno; `constraint` and `table` are a database's; `detail` is
    there for our own errors only.
    """
    return _describe(error, depth=0)


class _Output(logging.StreamHandler[TextIO]):
    """A stream that says nothing about a record it could not write: the complaint would quote the record."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Drop the record."""


def _renderer(*, pretty: bool) -> Processor:
    if pretty:
        return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    return structlog.processors.JSONRenderer(serializer=json.dumps)


def _constant_words(_: object, __: str, event: EventDict) -> EventDict:
    """Keep of a library's message what its authors wrote, not what they filled in.

    With arguments that is the template. Without any the text may have been put together before, with values from its
    first colon or line end on.
    """
    record: logging.LogRecord = event["_record"]
    if isinstance(record.msg, BaseException):
        event["error"] = record.msg
    words = str(record.msg) if isinstance(record.msg, str) else type(record.msg).__name__
    if not record.args:
        words = re.split(r":\s|:$|\n", words, maxsplit=1)[0]
    return {**event, "event": words, "at": f"{record.module}:{record.lineno}"}


def _exception(_: object, __: str, event: EventDict) -> EventDict:
    """Put the exception that `exc_info` names, in any form that logging allows, into the field `error`."""
    event.pop("stack_info", None)
    given = event.pop("exc_info", None)
    if isinstance(given, tuple):
        given = given[1]
    error = given if isinstance(given, BaseException) else sys.exception() if given else None
    return event if error is None else {**event, "error": error}


def _clean_fields(_: object, __: str, event: EventDict) -> EventDict:
    """Clean every field but those that structlog put there for itself."""
    return {
        name if name.isidentifier() else _text(name): value if name in _INTERNAL else _clean(name, value, depth=0)
        for name, value in event.items()
    }


_INTERNAL: Final = frozenset({"_record", "_from_structlog"})

COMMON: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _exception,
    _clean_fields,
)


def _clean(name: str, value: object, *, depth: int) -> Any:
    """Give a value as it may be written: plain, short, one line, nothing secret."""
    cleaned: Any = f"<{type(value).__name__}>"
    if value is None or isinstance(value, bool | int):
        cleaned = value
    elif isinstance(value, float):
        cleaned = value if math.isfinite(value) else str(value)
    elif SECRET_NAME.search(name):
        cleaned = MASK
    elif isinstance(value, str | UUID | date | time | timedelta | Decimal | PurePath):
        cleaned = _text(str(value))
    elif isinstance(value, BaseException):
        cleaned = describe(value)
    elif isinstance(value, Mapping) and depth < DEPTH_LIMIT:
        cleaned = {
            _text(str(key)): _clean(str(key), item, depth=depth + 1) for key, item in islice(value.items(), ITEM_LIMIT)
        }
    elif isinstance(value, list | tuple | set | frozenset) and depth < DEPTH_LIMIT:
        cleaned = [_clean(name, item, depth=depth + 1) for item in islice(value, ITEM_LIMIT)]
    return cleaned


def _text(text: str) -> str:
    """Give a text in one printable line of bounded length, with secrets masked (T101)."""
    text = SECRET_SHAPE.sub(lambda match: f"{match[match.lastgroup or 0]}{MASK}", text[: 4 * TEXT_LIMIT])
    if len(text) > TEXT_LIMIT:
        text = f"{text[:TEXT_LIMIT]}…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _describe(error: BaseException, *, depth: int) -> dict[str, Any]:
    described: dict[str, Any] = {"type": f"{type(error).__module__}.{type(error).__qualname__}"}
    described |= {name: _text(str(value)) for name, value in _facts(error).items() if value}
    described["at"] = [
        f"{frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ][-FRAME_LIMIT:]
    if depth < DEPTH_LIMIT:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            described["cause"] = _describe(cause, depth=depth + 1)
        if isinstance(error, BaseExceptionGroup):
            described["errors"] = [_describe(each, depth=depth + 1) for each in error.exceptions[:DEPTH_LIMIT]]
    return described


def _facts(error: BaseException) -> dict[str, object]:
    """Give what an exception says about itself that cannot hold data; SQLAlchemy wraps the driver's as `orig`."""
    if isinstance(error, IngestdError):
        return {"code": error.code, "detail": error.detail}
    if isinstance(error, OSError):
        return {"code": error.errno, "detail": error.strerror if error.errno else None}
    driver = getattr(error, "orig", None) or error
    diagnosis = getattr(driver, "diag", None)
    return {
        "code": getattr(driver, "sqlstate", None),
        "constraint": getattr(diagnosis, "constraint_name", None),
        "table": getattr(diagnosis, "table_name", None),
    }


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _log.critical("Uncaught exception", exc_info=error)


def _uncaught_in_thread(given: threading.ExceptHookArgs) -> None:
    if given.exc_value is not None and not isinstance(given.exc_value, SystemExit):
        _log.critical(
            "Uncaught exception in a thread", exc_info=given.exc_value, thread=given.thread and given.thread.name
        )


_log = logger(__name__)
