"""Where records begin and end, and which of them are well formed (D42 to D44, D47).

A record is one line, or several where a quoted cell holds line ends. A cell is plain, and then holds no quote, or it
stands between quotes, and then a quote inside it is written twice. LF ends a line; a CR before it belongs to the line
end.

A line with an even number of quotes leaves the quotes as it found them; one with an odd number opens or closes one.
So a record is one even line, or runs from one odd line to the next. What is outside quotes where a line starts a
record ("fresh") is inside them where it lies within one ("inner"), so both views come from one look. All that is left
to do in order is to tell which odd lines go together: a record that cannot be closed costs its first line and no
other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    from ingestd.domain.plan import Limits

LF, CR, QUOTE = b'\n\r"'

VERDICTS: Final = (
    "good", "blank", "cell_too_long", "field_count", "quote_misplaced", "quote_open", "encoding_invalid", "nul_byte",
    "line_too_long",
)  # fmt: skip
"""What a record can be: good, blank, or a code of `rejection.ROW_REASONS`; of several the last one is said."""
(
    GOOD, BLANK, CELL_TOO_LONG, FIELD_COUNT, QUOTE_MISPLACED, QUOTE_OPEN, ENCODING_INVALID, NUL_BYTE,
    LINE_TOO_LONG,
) = range(len(VERDICTS))  # fmt: skip

UTF8_BLOCK: Final = 16 * 1024  # bytes that are looked at as one text; in a bad one each line is
MOST_MARKS: Final = 2_000_000  # positions held at once, so that memory is bounded where every byte is a separator,
MOST_LINES: Final = 250_000  # or where there is a record to every other byte

Octets = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.integer[Any]]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Records:
    """The records of some lines: one entry a record in each array.

    `start` and `end` are byte positions (`end` after the line end), `line` counts from 0, `fields` is right where the
    quotes are, `verdict` is a position in `VERDICTS`. `consumed` bytes in `lines` lines are decided. The rest needs
    more input, or where `crowded`, another call.
    """

    start: Integers
    end: Integers
    line: Integers
    fields: Integers
    verdict: npt.NDArray[np.uint8]
    consumed: int
    lines: int
    crowded: bool


@dataclass(frozen=True, slots=True)
class _Marks:
    """Where separators, quotes and line ends stand, and which of `at` are line ends and quotes (positions in `at`)."""

    octets: Octets
    delimiter: int
    at: Integers
    line: Integers
    quote: Integers
    crowded: bool

    def quote_at(self, which: Integers) -> Integers:
        """Return where these quotes stand; `which` numbers all quotes from 0."""
        return self.at[self.quote[which]]


@dataclass(frozen=True, slots=True)
class _Lines:
    """One entry a line: where it starts and its LF stands, its length without line end, whether that is too long."""

    start: Integers
    stop: Integers
    length: Integers
    long: Flags


@dataclass(frozen=True, slots=True)
class _Quotes:
    """What the quotes make of each line: one entry a line.

    `until` is the number of quotes up to its end. `inside` counts its separators within quotes in the fresh view,
    which are those outside in the inner view.
    """

    until: Integers
    odd: Flags
    misplaced: Flags  # in the fresh view
    inside: Integers
    outside: Integers


def cut(data: bytes, *, delimiter: int, columns: int, limits: Limits, final: bool) -> Records:
    """Cut whole lines into records of `columns` fields, and judge each record.

    `data` holds an LF; what follows the last one is not looked at. Unless `final`, a record still open at the end is
    left for more input: what is decided does not depend on how the input was cut into pieces.
    """
    marks = _marks(data, delimiter, limits)
    lines = _lines(marks, limits.line_bytes)
    count = len(lines.stop)
    if len(marks.quote):
        quotes = _quotes(marks)
        opening, closing, count = _pair(marks, lines, quotes, limits, final=final and not marks.crowded)
        first, fields = _join(quotes, opening, closing, count)
    else:
        quotes, opening = None, _NONE
        first, fields = np.arange(count), np.diff(marks.line, prepend=-1)
    verdict = np.where(fields == columns, np.uint8(GOOD), np.uint8(FIELD_COUNT))
    if quotes:
        still_open = quotes.odd[first]
        still_open[np.searchsorted(first, opening)] = False
        verdict[still_open] = QUOTE_OPEN
        verdict[quotes.misplaced[first]] = QUOTE_MISPLACED
    verdict[lines.length[first] == 0] = BLANK
    for code, bad in (
        (ENCODING_INVALID, _not_utf8(data, lines)),
        (NUL_BYTE, _with_nul(data, lines)),
        (LINE_TOO_LONG, np.flatnonzero(lines.long)),
    ):
        verdict[np.searchsorted(first, bad[bad < count], side="right") - 1] = code
    start, consumed = lines.start[first], int(lines.stop[count - 1]) + 1 if count else 0
    return Records(start, np.append(start[1:], consumed), first, fields, verdict, consumed, count, marks.crowded)


_NONE: Final[Integers] = np.empty(0, np.int64)


def _marks(data: bytes, delimiter: int, limits: Limits) -> _Marks:
    """Find the marks of the lines, or where there are very many, of so many lines that memory stays bounded."""
    octets = np.frombuffer(data, np.uint8, data.rindex(LF) + 1)
    marked = octets == LF
    marked |= octets == delimiter
    if QUOTE in data:
        marked |= octets == QUOTE
    # What is looked at is always more than a record left open may hold, so that every call decides something.
    most = max(MOST_MARKS, 2 * (limits.line_bytes + limits.open_quote_bytes))
    share = most / max(int(np.count_nonzero(marked)), most)
    crowded = share < 1
    if crowded:
        octets = octets[: data.find(LF, int(share * len(octets))) + 1]
    at = np.flatnonzero(marked[: len(octets)])
    kind = octets[at]
    line = np.flatnonzero(kind == LF)
    most = max(MOST_LINES, 2 * limits.open_quote_lines)
    if len(line) > most:
        crowded, line = True, line[:most]
        at, kind = at[: line[-1] + 1], kind[: line[-1] + 1]
        octets = octets[: at[-1] + 1]
    quote = np.flatnonzero(kind == QUOTE) if QUOTE in data else _NONE
    return _Marks(octets, delimiter, at, line, quote, crowded)


def _lines(marks: _Marks, longest: int) -> _Lines:
    stop = marks.at[marks.line]
    start = np.empty_like(stop)
    start[0] = 0
    start[1:] = stop[:-1] + 1
    length = stop - start
    # Where a line is empty the byte before its LF is another line's; at the very start it is the last byte, an LF.
    length -= (marks.octets[stop - 1] == CR) & (length > 0)
    return _Lines(start, stop, length, length > longest)


def _quotes(marks: _Marks) -> _Quotes:
    """Look at each quote as if its line began a record."""
    until = np.searchsorted(marks.quote, marks.line)
    count = np.diff(until, prepend=0)
    odd = (count & 1).astype(np.bool_)
    # A line that leaves a quote open gets one more at its end: then the quotes of every line come in twos.
    twos = np.insert(marks.quote, until[odd], marks.line[odd]) if odd.any() else marks.quote
    opens, closes = twos[0::2], twos[1::2]
    twos_until = np.cumsum((count + 1) >> 1)
    separators = np.concatenate(([0], np.cumsum(closes - opens - 1)))
    inside = np.diff(separators[twos_until], prepend=0)
    outside = np.diff(marks.line, prepend=-1) - 1 - count - inside
    closes_at = marks.at[closes]
    closes_at[twos_until[odd] - 1] -= 1  # the one more stands right before the LF
    wrong = ~(_can_open(marks, marks.at[opens]) & _can_close(marks, closes_at))
    misplaced = np.zeros(len(marks.line), np.bool_)
    misplaced[np.searchsorted(twos_until, np.flatnonzero(wrong), side="right")] = True
    return _Quotes(until, odd, misplaced, inside, outside)


def _can_open(marks: _Marks, at: Integers) -> Flags:
    """Tell which quotes stand where a cell begins, or behind a quote, which makes of the two one quote in a cell."""
    before = marks.octets[at - 1]  # before the first byte comes the last, an LF
    opens: Flags = (before == marks.delimiter) | (before == LF) | (before == QUOTE)
    return opens


def _can_close(marks: _Marks, at: Integers) -> Flags:
    """Tell which quotes stand where a cell ends, or before another quote."""
    after = marks.octets[at + 1]
    closes: Flags = (after == marks.delimiter) | (after == LF) | (after == QUOTE)
    returns = np.flatnonzero(after == CR)
    closes[returns] = marks.octets[at[returns] + 2] == LF
    return closes


def _pair(
    marks: _Marks, lines: _Lines, quotes: _Quotes, limits: Limits, *, final: bool
) -> tuple[Integers, Integers, int]:
    """Return the first and the last lines of the records of several lines, and how many lines are decided."""
    count = len(lines.start)
    odd = np.flatnonzero(quotes.odd | lines.long)  # what a line too long would open or close, nobody asks
    if not len(odd):
        return _NONE, _NONE, count
    hopeless = quotes.misplaced | lines.long
    opening, closing = odd[:-1], odd[1:]
    fits = ~(hopeless[opening] | lines.long[closing]) & (closing - opening < limits.open_quote_lines)
    fits[fits] = _closed(marks, quotes, opening[fits], closing[fits], limits.open_quote_bytes)
    taken, turn, tries = [], 0, fits.tolist()
    while turn < len(tries):
        if tries[turn]:
            taken.append(turn)
            turn += 1  # its closing line opens nothing
        turn += 1
    last = odd[-1]
    undecided = (
        not final
        and turn == len(tries)  # the last odd line closes nothing
        and not hopeless[last]
        and count - last < limits.open_quote_lines
        and lines.stop[-1] + 1 - marks.quote_at(quotes.until[last] - 1) <= limits.open_quote_bytes
    )
    return opening[taken], closing[taken], int(last) if undecided else count


def _closed(marks: _Marks, quotes: _Quotes, opening: Integers, closing: Integers, most: int) -> Flags:
    """Tell which openings are closed rightly, by a line whose first quote is at most `most` bytes away."""
    begin, end = quotes.until[opening], quotes.until[closing]
    closed = marks.quote_at(quotes.until[closing - 1]) - marks.quote_at(begin - 1) <= most
    closed &= _can_close(marks, marks.quote_at(begin))
    # Almost only true pairs are left now: few quotes remain to be looked at one by one, in the inner view.
    rest = np.flatnonzero(closed)
    size = end[rest] - begin[rest]
    owner = np.repeat(rest, size)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(size) - size, size)
    at = marks.quote_at(begin[owner] + nth)
    right = np.where(nth & 1, _can_open(marks, at), _can_close(marks, at))
    closed[owner[~right]] = False
    return closed


def _join(quotes: _Quotes, opening: Integers, closing: Integers, count: int) -> tuple[Integers, Integers]:
    """Return each record's first line and its number of fields; `count` lines are decided."""
    if not len(opening):
        return np.arange(count), quotes.outside[:count] + 1
    steps = np.zeros(count + 1, np.int8)
    steps[opening + 1] = 1
    steps[closing + 1] = -1
    first = np.flatnonzero(np.cumsum(steps[:-1], dtype=np.int8) == 0)
    fields = quotes.outside[first] + 1
    inside = np.cumsum(quotes.inside)
    fields[np.searchsorted(first, opening)] += inside[closing] - inside[opening]
    return first, fields


def _with_nul(data: bytes, lines: _Lines) -> Integers:
    """Return the lines that hold a NUL byte."""
    bad: list[int] = []
    at = data.find(b"\0")
    while 0 <= at <= lines.stop[-1]:
        bad.append(int(np.searchsorted(lines.stop, at)))
        at = data.find(b"\0", int(lines.stop[bad[-1]]))
    return np.array(bad, np.int64)


def _not_utf8(data: bytes, lines: _Lines) -> Integers:
    """Return the lines that are not UTF-8."""
    if data.isascii():
        return _NONE
    first = np.flatnonzero(np.diff(lines.start // UTF8_BLOCK, prepend=-1))  # where blocks of whole lines begin
    edges = np.append(lines.start[first], lines.stop[-1] + 1)
    blocks = pa.LargeStringArray.from_buffers(len(first), pa.py_buffer(edges), pa.py_buffer(data))
    if _is_utf8(blocks):
        return _NONE
    bad: list[int] = []
    for at, beyond in enumerate(np.append(first[1:], len(lines.stop)).tolist()):
        if not _is_utf8(blocks.slice(at, 1)):
            bounds = zip(lines.start[first[at] : beyond].tolist(), lines.stop[first[at] : beyond].tolist(), strict=True)
            bad += [line for line, (start, stop) in enumerate(bounds, first[at]) if not _decodes(data[start:stop])]
    return np.array(bad, np.int64)


def _decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_utf8(text: pa.LargeStringArray) -> bool:
    """Look at many bytes at once, which is several times as fast as decoding them."""
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
