"""The rules of a row: one small function each, giving Polars expressions over the cells of a batch.

A cell is a String expression, null where blank; nothing is trimmed (` 1` is no INTEGER) but identifiers and event
names. A rule says of a column what its cells mean and which are wrong. *Why* one is wrong is a second set of masks,
asked only about the rows that failed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import polars as pl

from ingestd.domain.column import MAX_EVENT_NAME_LENGTH, MAX_EVENT_PROPERTIES, OPERATION_CODES, Operation
from ingestd.domain.identity import MAX_IDENTIFIER_LENGTH
from ingestd.domain.rejection import ROW_REASONS
from ingestd.pipeline.cells import rewrite

DAY: Final = 86_400
YEAR_1: Final = -62_135_596_800
"""The first second of the year 1, in epoch seconds (D55)."""
YEAR_2000: Final = 946_684_800
YEAR_10000: Final = 253_402_300_800
"""The second after the last that a date can be, where a zone west of Greenwich could lead (D55)."""
MAX_SECONDS: Final = 99_999_999_999
"""The largest number of 11 digits; it lies within the year 5138 (D55)."""
MILLISECONDS: Final = (1_000_000_000_000, 9_999_999_999_999)
"""Numbers of 13 digits, which as a time can only be milliseconds (D20)."""

DATE_PREFIX: Final = "$D_"
_DATE: Final = r"^\$D_-?[0-9]{1,11}$"
_SECONDS: Final = r"^-?[0-9]{1,11}$"
_DAY_IN_DIGITS: Final = r"^(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])$"
_ISO_8601: Final = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,][0-9]{1,9})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?$"
)
_INVISIBLE: Final = r"[\p{Cc}\p{Cf}\p{Co}]"  # UTF-8 holds no surrogates (Cs)
_ASCII_SPACE: Final = " \t\r\n\v\f"

_ATOM: Final = r'[^\s\x00-\x20\x7f"(),.:;<>@\[\\\]]+'
_LABEL: Final = r"[0-9A-Za-z[^\x00-\x7f\s]](?:-*[0-9A-Za-z[^\x00-\x7f\s]])*"
_EMAIL: Final = rf"^{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+[A-Za-z[^\x00-\x7f\s]](?:-*[0-9A-Za-z[^\x00-\x7f\s]])+$"
MAX_EMAIL_BYTES: Final = 254
_CAPITAL_IN_DOMAIN: Final = r"@.*[A-Z[^\x00-\x7f]]"

_WORDS: Final = {"true": "true", "y": "true", "yes": "true", "false": "false", "n": "false", "no": "false"}

_ESCAPES: Final = {chr(code): json.dumps(chr(code))[1:-1] for code in (*range(0x20), ord('"'), ord("\\"))}
"""As PostgreSQL writes them too, so that equal values have equal texts."""


class Reading(NamedTuple):
    """What the cells of a column mean: `value` (null where blank or wrong), `wrong`, and code → mask of the reasons.

    A mask may be null where its cell is; every wrong row has at least one reason, and no other row has any.
    """

    value: pl.Expr
    wrong: pl.Expr
    reasons: Mapping[str, pl.Expr]


def sentence(code: str, **facts: object) -> str:
    """The sentence of a reason with its facts filled in: `column` (a header), `line`, `found`, `expected`."""
    return ROW_REASONS[code].sentence.format(**facts)


# Cells of attributes: the value is a fragment of JSON text.


def integer(cell: pl.Expr) -> Reading:
    """A whole number of 32 bits, as it stands in JSON (S113, D55)."""
    number = cell.cast(pl.Int32, strict=False)
    return _numeric(cell, number.cast(pl.String), "integer_invalid")


def long(cell: pl.Expr) -> Reading:
    """A whole number of 64 bits, as it stands in JSON (S113, D55)."""
    number = cell.cast(pl.Int64, strict=False)
    return _numeric(cell, number.cast(pl.String), "long_invalid")


def decimal(cell: pl.Expr) -> Reading:
    """A finite FLOAT in its shortest form, `123.0` for 123 (S113); `NaN`, `inf` and `1e400` are none."""
    number = cell.cast(pl.Float64, strict=False)
    finite = pl.when(number == 0).then(0.0).when(number.is_finite()).then(number)  # -0.0 is 0.0
    return _numeric(cell, finite.cast(pl.String), "float_invalid")


def _numeric(cell: pl.Expr, value: pl.Expr, code: str) -> Reading:
    wrong = cell.is_not_null() & value.is_null()
    date = cell.str.starts_with(DATE_PREFIX)
    return Reading(value, wrong, {code: wrong & ~date, "date_in_number": wrong & date})


def boolean(cell: pl.Expr) -> Reading:
    """A boolean of plain words as `true` or `false` (D22)."""
    truth = truth_of(cell)
    return _numeric(cell, pl.when(truth).then(pl.lit("true")).when(~truth).then(pl.lit("false")), "boolean_invalid")


def preference(cell: pl.Expr) -> Reading:
    """A communication preference: a boolean of plain words, whatever type was declared (S104, D55)."""
    truth = truth_of(cell)
    wrong = cell.is_not_null() & truth.is_null()
    return Reading(truth, wrong, {"boolean_invalid": wrong})


def truth_of(cell: pl.Expr) -> pl.Expr:
    """True, False, or null for a cell that holds no boolean; comparisons are far faster here than `is_in`."""
    return pl.when((cell == "true") | (cell == "1")).then(True).when((cell == "false") | (cell == "0")).then(False)


def odd_word(cell: pl.Expr) -> pl.Expr:
    """True where a cell is no plain word of a boolean: true, false, 1 or 0."""
    return ~((cell == "true") | (cell == "1") | (cell == "false") | (cell == "0"))


def plain_words(cells: pl.Series) -> pl.Series:
    """Bring other ways to write a boolean, y, n, yes, no and any case, to the plain ones; leave the rest (D22)."""
    words = pl.col("cell").str.to_lowercase().replace_strict(_WORDS, default=None, return_dtype=pl.String)
    return cells.to_frame("cell").select(pl.coalesce(words, "cell")).to_series()


def text(cell: pl.Expr, escaped: pl.Expr, dated: pl.Expr | None) -> Reading:
    """A STRING exactly as it stands, or a date if it starts with `$D_` (S94, D21, D55).

    `escaped` is the cell as it stands in JSON, `dated` its value as one of `dates`; None says that no cell has a `$`.
    """
    quoted = quote(escaped)
    if dated is None:
        return Reading(quoted, pl.lit(False), {})
    wrong = cell.str.starts_with(DATE_PREFIX) & dated.is_null()
    return Reading(pl.when(~wrong).then(pl.coalesce(dated, quoted)), wrong, {"date_invalid": wrong})


def dates(cells: pl.Series) -> pl.Series:
    """Dates, `$D_` and epoch seconds of the years 1 to 9999, as `{"$D": seconds}`; null for all else (S94, D55)."""
    cell, seconds = pl.col("cell"), pl.col("seconds")
    digits = pl.when(cell.str.contains(_DATE)).then(cell.str.slice(len(DATE_PREFIX)))
    found = cells.to_frame("cell").select(seconds=digits.cast(pl.Int64, strict=False))
    return found.select(pl.when(seconds >= YEAR_1).then(_dated(seconds))).to_series()


def moment(cell: pl.Expr) -> Reading:
    """A date or a time of day in ISO 8601, UTC unless it says otherwise, or in epoch seconds, `$D_` or not (D14).

    Eight digits that read as a day are refused: epoch seconds of 1970 are hardly meant.
    """
    day, minute, second, zone = (cell.str.extract(_ISO_8601, group) for group in range(1, 5))
    pieces = [day, pl.lit("T"), minute.fill_null("00:00"), pl.lit(":"), second.fill_null("00")]
    zone = pl.when(zone != "Z").then(zone).otherwise(pl.lit("+00:00"))
    iso = pl.concat_str([*pieces, zone]).str.to_datetime("%Y-%m-%dT%H:%M:%S%z", strict=False, time_unit="us")
    number = cell.str.strip_prefix(DATE_PREFIX)
    plain = number.str.contains(_SECONDS) & ~cell.str.contains(_DAY_IN_DIGITS)
    epoch = pl.when(plain).then(number).cast(pl.Int64, strict=False)
    seconds = pl.coalesce(epoch, iso.dt.epoch("s"))
    value = pl.when((seconds >= YEAR_1) & (seconds < YEAR_10000)).then(_dated(seconds))
    wrong = cell.is_not_null() & value.is_null()
    return Reading(value, wrong, {"moment_invalid": wrong})


def _dated(seconds: pl.Expr) -> pl.Expr:
    return pl.concat_str([pl.lit('{"$D":'), seconds, pl.lit("}")])


def email(cell: pl.Expr) -> Reading:
    """An address by its shape, kept as it stands (D5)."""
    wrong = no_email(cell)
    value = pl.when(~wrong).then(quote(cell))
    return Reading(value, wrong, {"email_invalid": wrong})


def no_email(cell: pl.Expr) -> pl.Expr:
    """True where a cell does not have the shape of an address, null where it is blank (D5)."""
    return ~(cell.str.contains(_EMAIL) & (cell.str.len_bytes() <= MAX_EMAIL_BYTES))


def phone(cell: pl.Expr, e164: pl.Expr) -> Reading:
    """A phone number in its E.164 form, which `phones` finds (D5)."""
    wrong = cell.is_not_null() & e164.is_null()
    return Reading(quote(e164), wrong, {"phone_invalid": wrong})


def quote(escaped: pl.Expr) -> pl.Expr:
    """A text that needs no escapes, or has them, as a JSON string."""
    return pl.concat_str([pl.lit('"'), escaped, pl.lit('"')])


def escaped(cells: pl.Series) -> pl.Series:
    """Texts with the escapes of JSON."""
    return cells.str.replace_many(list(_ESCAPES), list(_ESCAPES.values()))


# Operations (S97 to S102).


def operated(cell: pl.Expr, operation: pl.Expr, plain: Reading) -> tuple[Reading, Reading]:
    """An attribute with an operation: its reading, and the reading of the operation (numbers of OPERATION_CODES).

    `$delete` ignores the value, right or wrong; no other operation is left without a value (D24).
    """
    code = pl.lit(None, pl.Int8)
    for word, number in OPERATION_CODES.items():
        code = pl.when(operation == word).then(pl.lit(number, pl.Int8)).otherwise(code)
    deletes = operation.eq_missing(pl.lit(Operation.DELETE.value))
    kept = Reading(
        pl.when(~deletes).then(plain.value),
        plain.wrong & ~deletes,
        {reason: mask & ~deletes for reason, mask in plain.reasons.items()},
    )
    unknown = operation.is_not_null() & code.is_null()
    blank = cell.is_null() & (operation == Operation.SET.value)
    what = pl.when(deletes | cell.is_not_null()).then(code)
    return kept, Reading(what, unknown | blank, {"operation_invalid": unknown, "set_blank": blank})


def no_operation(operation: pl.Expr) -> dict[str, pl.Expr]:
    """An event's property takes no operation (D23)."""
    return {"operation_on_event": operation.is_not_null()}


# Reserved columns.


def time(cell: pl.Expr) -> Reading:
    """A time in epoch seconds, within 11 digits and the year 1 (S93, D20)."""
    number = cell.cast(pl.Int64, strict=False)
    value = pl.when(number.is_between(YEAR_1, MAX_SECONDS)).then(number)
    wrong = cell.is_not_null() & value.is_null()
    milliseconds = number.is_between(*MILLISECONDS).fill_null(False)
    return Reading(value, wrong, {"ts_invalid": wrong & ~milliseconds, "ts_milliseconds": wrong & milliseconds})


def event_time(cell: pl.Expr, now: int) -> Reading:
    """A time from 2000-01-01 to a day ahead of `now`, in epoch seconds (D48)."""
    plain = time(cell)
    outside = ~plain.value.is_between(YEAR_2000, now + DAY)
    return Reading(plain.value, plain.wrong | outside, {**plain.reasons, "ts_out_of_range": outside})


def event_name(cell: pl.Expr, restricted: Sequence[str]) -> Reading:
    """The name of an event, trimmed: 1 to 512 characters, and none of the system's own (S124, S125, D36)."""
    name = cell.str.strip_chars()
    missing = name.is_null() | (name == "")
    long_name = name.str.len_chars() > MAX_EVENT_NAME_LENGTH
    system = name.is_in(list(restricted))
    reasons = {"event_name_missing": missing, "event_name_too_long": long_name, "event_name_restricted": system}
    return Reading(name, missing | long_name | system, reasons)


# Identifiers (S115, D19, D27, T117).


def normal_identifiers(cells: pl.Series) -> pl.Series:
    """Bring identifiers to their normal form, `identity.normalise` by the column; null where only space is left.

    A solid one is normal. Length and characters are judged by `identifier_missing` and `invisible`.
    """
    trimmed = cells.str.strip_chars(_ASCII_SPACE)
    foreign = trimmed.str.len_bytes() != trimmed.str.len_chars()
    normal = rewrite(trimmed, foreign, lambda some: some.str.normalize("NFC"))
    return normal.set(normal.str.strip_chars() == "", None)


def lower_domains(cells: pl.Series) -> pl.Series:
    """Bring the domains of addresses to lower case, as `identity.normalise` does; of what is none anything."""
    mailbox, domain = (pl.col("parts").struct.field(f"field_{place}") for place in (0, 1))

    def lower(some: pl.Series) -> pl.Series:
        parts = some.str.split_exact("@", 1).to_frame("parts")
        return parts.select(pl.concat_str(mailbox, pl.lit("@"), domain.str.to_lowercase())).to_series()

    return rewrite(cells, cells.str.contains(_CAPITAL_IN_DOMAIN), lower)


def identifier_missing(
    identifiers: Sequence[pl.Expr], *, long_ones: Sequence[pl.Expr], code: str
) -> dict[str, pl.Expr]:
    """A row needs one identifier, and each it has must be under 1,024 characters; `long_ones` are worth measuring."""
    missing = pl.all_horizontal([cell.is_null() for cell in identifiers])
    too_long = [cell.str.len_chars() > MAX_IDENTIFIER_LENGTH for cell in long_ones]
    return {code: pl.any_horizontal([missing, *too_long])}


def invisible(identifiers: pl.Series, strange: pl.Series) -> pl.Series:
    """True where a control, format or private-use character stands in an identifier; only a strange one has any."""
    where = strange.arg_true()
    return pl.repeat(False, len(identifiers), eager=True).scatter(
        where, identifiers.gather(where).str.contains(_INVISIBLE)
    )


# Whole rows.


def cell_too_long(cells: Sequence[pl.Expr], limit: int) -> dict[str, pl.Expr]:
    """No cell is longer than `limit` bytes (D47)."""
    return {"cell_too_long": pl.any_horizontal([cell.str.len_bytes() > limit for cell in cells])}


def padded(cell: pl.Expr) -> dict[str, pl.Expr]:
    """Nothing but a tab stands between two cells of a data source's file (S53, D11)."""
    return {"padded": cell != cell.str.strip_chars()}


def too_many_properties(cells: Sequence[pl.Expr]) -> dict[str, pl.Expr]:
    """An event has at most 100 properties that are not blank (S126, D28)."""
    count = pl.sum_horizontal([cell.is_not_null().cast(pl.Int32) for cell in cells])
    return {"too_many_event_properties": count > MAX_EVENT_PROPERTIES}
