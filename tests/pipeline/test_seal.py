"""Personal columns are sealed as each of their values is alone."""

from __future__ import annotations

import json
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.keyring import Keyring, new_master
from ingestd.pipeline.seal import seal

ACCOUNT = UUID(int=7)
KEYRING = Keyring.load(new_master())
KEYS = KEYRING.open(ACCOUNT, KEYRING.new_account_keys(ACCOUNT))
VALUES = st.none() | st.integers() | st.text(st.characters(codec="utf-8")) | st.integers(240, 300).map("x".__mul__)


@pytest.mark.rule("S61", "D13")
@given(st.lists(VALUES, min_size=1))
def test_a_column_is_sealed_value_by_value(values):
    texts = [None if each is None else json.dumps(each, ensure_ascii=False) for each in values]
    rows = pl.DataFrame({"a:mail": texts, "a:town": texts}, schema=dict.fromkeys(("a:mail", "a:town"), pl.String))
    sealed, _ = seal(rows, {"mail": None, "tier": None}, KEYS)
    assert sealed["a:town"].to_list() == texts
    for text, found in zip(texts, sealed["a:mail"], strict=True):
        assert (found is None) == (text is None)
        if text is not None:
            (token,) = json.loads(found).values()
            assert token == KEYS.seal_value("mail", text)
