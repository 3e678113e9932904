"""A look at the beginning of a file: delimiter, header, what its columns seem to hold, and its first rows, masked."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from ingestd.domain.column import DataType
from ingestd.domain.data_source import header_problem
from ingestd.domain.plan import Limits
from ingestd.pipeline import rules
from ingestd.pipeline.phones import Phones, odd_phone
from ingestd.pipeline.scan import open_scan
from ingestd.pipeline.sniff import BOM, sniff

HEAD_BYTES: Final = 1024 * 1024
"""What is looked at of a file."""

SHOWN_ROWS: Final = 20
Encoding = Literal["utf-8", "utf-8-sig"]
Delimiter = Literal["tab", "comma", "semicolon", "pipe"]
DELIMITERS: Final[dict[Delimiter, str]] = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}

LOOKS_LIKE_A_VALUE: Final = "looks like a value; has the file a header?"

_PERSONS: Final = re.compile(
    r"[^@\s]{1,64}@[^@\s]{1,255}\.[^@\s]{1,63}"
    r"|[+(]*[0-9](?:[ ()/.-]*[0-9]){6,}"
    r"|[0-9]{1,4}([-./])[0-9]{1,2}\1[0-9]{1,4}.*"
)
"""An address, a number of seven digits or more, or a day: no name of a column, but what one person has."""

_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)*")

_WORDS: Final = r"^(?i:true|false|yes|no|y|n)$"
_ISO_DAY: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_LEAST_UNIQUE: Final = 0.95
_IDENTIFYING: Final = re.compile(r"id$|^id|mail|phone|mobile|key|number|^hm$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ColumnLook:
    """What a column seems to be.

    `format` is the narrowest that all cells looked at fit, None where they are blank; `identifier` a score from 0 to 1
    of how well it would tell people apart. Where the header may be a value it can be `masked`.
    """

    header: str
    masked: bool
    problem: str | None
    format: DataType | None
    blank: int
    distinct: int
    identifier: float


@dataclass(frozen=True, slots=True)
class Preview:
    """What was seen; `rows` are the first, every letter an x and every digit a 0, and null where blank."""

    encoding: Encoding
    delimiter: Delimiter
    columns: list[ColumnLook]
    rows_looked_at: int
    broken_rows: int
    rows: list[list[str | None]]


def preview(head: bytes, limits: Limits, *, personal: bool) -> Preview:
    """Look at a file by its first HEAD_BYTES, or raise FileRefused where that is no text in lines with a header.

    A header that may be the first row is masked like one, unless `personal` values may be shown.
    """
    sniff(head)
    whole = head if len(head) < HEAD_BYTES else head[: head.rfind(b"\n") + 1] or head
    delimiter = _delimiter(whole.removeprefix(BOM).split(b"\n", 1)[0].decode(errors="replace"))
    scan = open_scan(io.BytesIO(whole), delimiter=DELIMITERS[delimiter], limits=limits)
    batches = list(scan.batches())
    places = [str(place) for place in range(len(scan.header))]
    rows = pl.concat([batch.rows.select(places) for batch in batches]) if batches else _nothing(places)
    headers = list(scan.header) if personal else _masked_headers(scan.header)
    return Preview(
        encoding="utf-8-sig" if head.startswith(BOM) else "utf-8",
        delimiter=delimiter,
        columns=[
            _look(header, shown, rows[place]) for header, shown, place in zip(scan.header, headers, places, strict=True)
        ],
        rows_looked_at=rows.height,
        broken_rows=sum(batch.broken.height for batch in batches),
        rows=[list(row) for row in _masked(rows.head(SHOWN_ROWS)).iter_rows()],
    )


def _delimiter(header: str) -> Delimiter:
    """The delimiter that cuts the header into most names; a tab where none does."""
    return max(DELIMITERS, key=lambda word: header.count(DELIMITERS[word]))


def _nothing(places: list[str]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(places, pl.String))


def _masked_headers(headers: Sequence[str]) -> list[str]:
    """The headers, masked where they may be values: all of them where one is what a person has, else mere numbers."""
    alike = any(map(_PERSONS.fullmatch, headers))
    masked = _masked(pl.DataFrame({"header": headers}, schema={"header": pl.String}))["header"]
    return [
        hidden if alike or _NUMBER.fullmatch(header) else header for header, hidden in zip(headers, masked, strict=True)
    ]


def _header_problem(header: str) -> str | None:
    if _PERSONS.fullmatch(header) or _NUMBER.fullmatch(header):
        return LOOKS_LIKE_A_VALUE
    return header_problem(header)


def _look(header: str, shown: str, cells: pl.Series) -> ColumnLook:
    given = cells.drop_nulls()
    distinct = given.n_unique()
    unique = distinct / cells.len() if cells.len() else 0.0
    telling = 1.0 if _IDENTIFYING.search(header) else 0.5
    return ColumnLook(
        header=shown,
        masked=shown != header,
        problem=_header_problem(header),
        format=_format(given) if given.len() else None,
        blank=cells.null_count(),
        distinct=distinct,
        identifier=round(unique * telling, 2) if unique >= _LEAST_UNIQUE else round(unique * telling / 2, 2),
    )


def _format(given: pl.Series) -> DataType:
    """The narrowest format that every cell fits."""
    fits: tuple[tuple[DataType, Callable[[pl.Series], bool]], ...] = (
        (DataType.BOOLEAN, lambda cells: _all(cells, pl.col("c").str.contains(_WORDS))),
        (DataType.PHONE, _phones),
        (DataType.INTEGER, lambda cells: _all(cells, ~rules.integer(pl.col("c")).wrong)),
        (DataType.LONG, lambda cells: _all(cells, ~rules.long(pl.col("c")).wrong)),
        (DataType.FLOAT, lambda cells: _all(cells, ~rules.decimal(pl.col("c")).wrong)),
        (DataType.DATE, lambda cells: _all(cells, pl.col("c").str.contains(_ISO_DAY) & ~_no_moment())),
        (DataType.EMAIL, lambda cells: _all(cells, ~rules.no_email(pl.col("c")))),
    )
    return next((data_type for data_type, fit in fits if fit(given)), DataType.STRING)


def _no_moment() -> pl.Expr:
    return rules.moment(pl.col("c")).wrong


def _phones(cells: pl.Series) -> bool:
    """Whether all are phone numbers of some length; the first few decide whether it is worth asking of the rest."""
    if not _all(cells, pl.col("c").str.contains(r"^\+?[1-9][0-9]{9,14}$")):
        return False
    frame = cells.to_frame("c")
    return Phones().normal(cells, frame.select(odd_phone(pl.col("c"))).to_series()).null_count() == 0


def _all(cells: pl.Series, fit: pl.Expr) -> bool:
    return bool(cells.to_frame("c").select(fit.fill_null(value=False).all()).item())


def _masked(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows in their shape alone: no value can be told, but its format can."""
    return rows.select(pl.all().str.replace_all(r"\p{L}|\p{M}", "x").str.replace_all(r"\p{N}", "0"))
