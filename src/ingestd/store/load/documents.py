"""JSON objects taken apart by the names in them: those of many people at once, in a few passes over the bytes (0017).

Only the marks are looked at between which names and values stand: quotes, commas and brackets. How many quotes come
before one, and how many brackets are open, says what it means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import reduce
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ingestd.store.load.stage import told_apart

_PIECE: Final = 256 * 1024
"""Bytes that are looked through at once."""

_MARKS: Final = b'",{}[]'
_QUOTE, _COMMA, _BRACE, _SPACE, _BACKSLASH = b'",{ \\'
_DEEPER: Final = np.zeros(256, np.int8)
_DEEPER[list(b"{[")], _DEEPER[list(b"}]")] = 1, -1

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]


class _Members(NamedTuple):
    """Members of objects: in which object each is, where its name begins and ends, where its value begins and ends."""

    number: Places
    name: Places
    closed: Places
    value: Places
    end: Places


def taken_apart(objects: bytes, columns: Mapping[str, str]) -> tuple[pl.DataFrame, pl.Series]:
    """What JSON objects, each on a line, have under some names, which are given by column: JSON text, or null.

    Also gives what else is in each, as members with commas between them, or null. The objects are valid, with at most
    one space behind a comma or a colon, and no name stands twice in one.
    """
    members, height = _members(objects)
    keys, values = _texts(objects, members)
    absent = pl.repeat(None, height, dtype=pl.String, eager=True)
    different, codes = told_apart(keys)
    code_of = {key: code for code, key in enumerate(different)}
    code = codes.to_numpy()
    is_other = np.ones(len(code), np.bool_)
    found = {}
    for column, name in columns.items():
        is_it = code == code_of.get(json.dumps(name, ensure_ascii=False), -1)
        is_other &= ~is_it
        at = np.flatnonzero(is_it)
        texts = values.gather(at)
        found[column] = texts if len(at) == height else absent.clone().scatter(members.number[at], texts)
    return pl.DataFrame(found), _only(objects, members, is_other, height) if is_other.any() else absent


def _members(objects: bytes) -> tuple[_Members, int]:
    """The members of all objects, and how many objects there are: piece by piece, so that the caches hold it."""
    content, found, height, first = np.frombuffer(objects, np.uint8), [], 0, 0
    while first < len(objects):
        after = objects.find(b"\n", first + _PIECE) + 1 or len(objects)
        members, count = _of_piece(content[first:after])
        found.append((members.number + height, *(place + first for place in members[1:])))
        height, first = height + count, after
    return _Members(*map(np.concatenate, zip(*found, strict=True))), height


def _of_piece(content: Bytes) -> tuple[_Members, int]:
    """The same of a few objects."""
    at = np.flatnonzero(reduce(np.logical_or, (content == mark for mark in _MARKS)))
    if (content == _BACKSLASH).any():
        at = at[~_escaped(content, at)]
    is_quote = content[at] == _QUOTE
    quotes, before = at[is_quote], np.cumsum(is_quote)
    outside = np.flatnonzero(~is_quote & (before % 2 == 0))  # not in a text, where the number is odd
    marks = content[at[outside]]
    depth = np.cumsum(_DEEPER[marks], dtype=np.int64)
    # A member stands between two edges: the braces of its object, and the commas in it.
    is_edge = (depth == 0) | (depth == 1) & ((marks == _COMMA) | (marks == _BRACE))
    edge, is_end = outside[is_edge], depth[is_edge] == 0
    place, name = at[edge], before[edge]  # the next quote opens the name
    begin = np.flatnonzero(~is_end[:-1] & (place[1:] > place[:-1] + 1))
    closed = quotes[name[begin] + 1] + 1
    value = closed + 1 + (content[closed + 1] == _SPACE)
    number = np.cumsum(is_end)
    return _Members(number[begin], quotes[name[begin]], closed, value, place[begin + 1]), int(number[-1])


def _escaped(content: Bytes, at: Places) -> Flags:
    """Whether an odd number of backslashes stands before each mark."""
    slashes = np.flatnonzero(content == _BACKSLASH)
    runs = slashes[np.diff(slashes, prepend=-2) != 1]
    escaped: Flags = content[at - 1] == _BACKSLASH
    behind = at[escaped]
    escaped[escaped] = (behind - runs[np.searchsorted(runs, behind) - 1]) % 2 == 1
    return escaped


def _texts(objects: bytes, members: _Members) -> tuple[pl.Series, pl.Series]:
    """The names of members, in quotes, and their values."""
    bounds = np.empty(4 * len(members.number) + 1, np.int64)
    for n, each in enumerate((members.name, members.closed, members.value, members.end)):
        bounds[n:-1:4] = each
    bounds[-1] = len(objects)
    pieces = pa.LargeStringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(objects))
    texts = pl.Series(pieces)
    return texts.gather_every(4), texts.gather_every(4, 2)


def _only(objects: bytes, members: _Members, kept: Flags, height: int) -> pl.Series:
    """The members that are `kept` of each object, with the commas between them, or null."""
    content = np.frombuffer(objects, np.uint8)
    number = members.number[kept]
    begin, end = members.name[kept], members.end[kept] + 1
    last = np.flatnonzero(np.diff(number, append=height))
    end[last] -= 1
    bounds = np.stack([begin, end], axis=1).ravel()
    is_kept = np.zeros(len(bounds) + 1, np.bool_)
    is_kept[1::2] = True
    text = content[np.repeat(is_kept, np.diff(bounds, prepend=0, append=len(content)))]
    ends = np.zeros(height + 1, np.int64)
    ends[number[last] + 1] = np.cumsum(end - begin)[last]
    ends = np.maximum.accumulate(ends)
    has = ends[1:] > ends[:-1]
    texts = pl.Series(pa.LargeStringArray.from_buffers(height, pa.py_buffer(ends), pa.py_buffer(text)))
    return texts if has.all() else pl.select(pl.when(pl.lit(pl.Series(has))).then(pl.lit(texts))).to_series()
