"""Seal: personal values in the rows of a part become tokens, before anything of them is stored (S61, D13, D55).

Equal values have equal tokens, so whether a value changed, and which values a list has, is seen from the tokens.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from ingestd.domain.identity import kind_word
from ingestd.domain.personal import SEALED, canonical, canonical_of, each_value, identifier_place
from ingestd.keyring import AccountKeys
from ingestd.keyring.siv import Bytes

_BEFORE, _AFTER = (each.encode() for each in json.dumps({SEALED: "*"}).split("*"))
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")

_LONG: Final = 256
"""Bytes; of longer texts hardly two have one length."""


def seal(rows: pl.DataFrame, personal: Mapping[str, int | None], keys: AccountKeys) -> tuple[pl.DataFrame, set[int]]:
    """Seal the columns "a:<name>" and "k<kind>" of personal attributes, which are given by name with their kind.

    Also gives the kinds of which the identifiers are sealed: JSON text then, as values are.
    """
    changed, kinds = [], set()
    for name, kind in personal.items():
        if (column := f"a:{name}") in rows.columns:
            changed.append(_sealed(rows[column], name, keys, written=True))
        if kind is not None and (column := f"k{kind}") in rows.columns:
            changed.append(_sealed(rows[column], identifier_place(kind_word(kind)), keys, written=False))
            kinds.add(kind)
    return rows.with_columns(changed), kinds


def seal_stored(stored: pl.DataFrame, personal: Mapping[str, int | None], keys: AccountKeys) -> pl.DataFrame:
    """Give stored values, JSON text in the same columns, as they will be once those that are not sealed yet are.

    So a value is compared with what a file brings of it also between the mark of its attribute and the sealing (D13).
    """
    places = {f"a:{name}": name for name in personal}
    places |= {f"k{kind}": identifier_place(kind_word(kind)) for kind in personal.values() if kind is not None}
    return stored.with_columns(
        _stored_sealed(stored[column], place, keys) for column, place in places.items() if column in stored.columns
    )


def _stored_sealed(values: pl.Series, place: str, keys: AccountKeys) -> pl.Series:
    distinct = values.drop_nulls().unique()
    found = [json.dumps(each_value(json.loads(text), partial(keys.seal_anew, place))) for text in distinct]
    return values.replace_strict(distinct, found, default=None, return_dtype=pl.String)


def _sealed(values: pl.Series, place: str, keys: AccountKeys, *, written: bool) -> pl.Series:
    """Values sealed for a place, each different one once; null stays. They are `written` as JSON, or plain texts."""
    distinct = values.drop_nulls().unique(maintain_order=True)
    texts = distinct
    if not written:
        texts = pl.Series(map(canonical_of, distinct), dtype=pl.String)
    elif (~distinct.str.starts_with('"') | distinct.str.contains("\\", literal=True)).any():
        texts = pl.Series(map(canonical, distinct), dtype=pl.String)
    found = _written(texts, place, keys).rename(values.name)
    if distinct.len() == values.len():
        return found
    return values.replace_strict(distinct, found, default=None, return_dtype=pl.String)


def _written(texts: pl.Series, place: str, keys: AccountKeys) -> pl.Series:
    """Texts sealed, as JSON, in their order: those of one length together, but long ones, which are few, one by one."""
    frame = pl.DataFrame({"text": texts, "size": texts.str.len_bytes()}).with_row_index("place").sort("size")
    found = []
    for (size,), group in frame.group_by("size", maintain_order=True):
        if size > _LONG:
            tokens = keys.seal_values(place, group["text"].cast(pl.Binary))
            found += [_json(np.frombuffer(token, np.uint8).reshape(1, -1)) for token in tokens]
        else:
            alike = np.frombuffer(group["text"].str.join("").item().encode(), np.uint8).reshape(-1, size)
            found.append(_json(keys.seal_alike(place, alike)))
    return pl.concat(found).gather(frame["place"].arg_sort()) if found else pl.Series([], dtype=pl.String)


def _json(tokens: Bytes) -> pl.Series:
    """Tokens of one length, the rows of a matrix, each as JSON in Base64 that is safe in URLs."""
    count, size = tokens.shape
    spare = -size % 3
    whole = np.hstack([tokens, np.zeros((count, spare), np.uint8)])
    letters = bytearray(b2a_base64(whole.tobytes(), newline=False).translate(_URL_SAFE))
    text = np.frombuffer(letters, np.uint8).reshape(count, -1)
    text[:, text.shape[1] - spare :] = ord("=")
    before, after = (np.broadcast_to(np.frombuffer(each, np.uint8), (count, len(each))) for each in (_BEFORE, _AFTER))
    lines = np.hstack([before, text, after])
    ends = np.arange(count + 1, dtype=np.int64) * lines.shape[1]
    return pl.Series(pa.LargeStringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(lines)))
