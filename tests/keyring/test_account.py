"""An account's keys in use: values, secrets, and the way into a worker process."""

from __future__ import annotations

import subprocess
import sys
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.keyring import Keyring, SealBroken, new_master
from ingestd.keyring.siv import Siv

ACCOUNT = UUID(int=7)
KEYRING = Keyring.load(new_master())
KEYS, OTHERS = (KEYRING.open(ACCOUNT, KEYRING.new_account_keys(ACCOUNT)) for _ in range(2))
TEXT = st.text(st.characters(codec="utf-8"))


@pytest.mark.rule("D13")
@pytest.mark.threat("T113")
@given(TEXT, TEXT, TEXT, TEXT)
def test_tokens_are_equal_exactly_when_attribute_and_value_are(attribute, text, other_attribute, other_text):
    token = KEYS.seal_value(attribute, text)
    assert KEYS.open_value(attribute, token) == text
    same = (attribute, text) == (other_attribute, other_text)
    assert (token == KEYS.seal_value(other_attribute, other_text)) == same


@pytest.mark.threat("T113")
@given(TEXT, st.integers(1, 100), st.data())
def test_texts_of_one_length_are_sealed_together_as_each_alone(attribute, size, data):
    texts = data.draw(st.lists(st.binary(min_size=size, max_size=size), min_size=1, max_size=5))
    together = KEYS.seal_alike(attribute, np.frombuffer(b"".join(texts), np.uint8).reshape(-1, size))
    assert [row.tobytes() for row in together] == KEYS.seal_values(attribute, texts)


def test_the_example_of_rfc_5297_comes_out():
    siv = Siv(bytes.fromhex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"))
    associated = bytes.fromhex("101112131415161718191a1b1c1d1e1f2021222324252627")
    text = np.frombuffer(bytes.fromhex("112233445566778899aabbccddee"), np.uint8).reshape(1, -1)
    sealed = siv.seal(associated, text).tobytes().hex()
    assert sealed == "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"


@pytest.mark.threat("T112")
def test_a_token_opens_only_for_its_attribute_and_account():
    token = KEYS.seal_value("Phone", "+911")
    for open_value in (
        lambda: KEYS.open_value("Email", token),
        lambda: OTHERS.open_value("Phone", token),
        lambda: KEYS.open_value("Phone", token[:-4]),
    ):
        with pytest.raises(SealBroken):
            open_value()


@pytest.mark.parametrize("text", ["", "+911", "not base64!", "é", "AAAA"])
def test_what_is_no_token_is_not_opened(text):
    with pytest.raises(SealBroken):
        KEYS.open_value("Phone", text)


@pytest.mark.threat("T110", "T112")
def test_a_secret_opens_only_in_its_place_and_never_looks_the_same():
    sealed = KEYS.seal_secret("webhook 1", b"secret")
    assert KEYS.open_secret("webhook 1", sealed) == b"secret"
    assert sealed != KEYS.seal_secret("webhook 1", b"secret")
    assert b"secret" not in sealed
    for open_secret in (
        lambda: KEYS.open_secret("webhook 2", sealed),
        lambda: OTHERS.open_secret("webhook 1", sealed),
        lambda: KEYS.open_secret("webhook 1", sealed[:-1]),
        lambda: KEYS.open_secret("webhook 1", b""),
    ):
        with pytest.raises(SealBroken):
            open_secret()


IN_ANOTHER_PROCESS = """
import sys
from ingestd.keyring import AccountKeys

packed, token = bytes.fromhex(sys.stdin.readline()), sys.stdin.readline().strip()
keys = AccountKeys.from_worker(packed)
print(keys.open_value("Phone", token), keys.index_key)
"""


def test_another_process_gets_the_keys_as_bytes():
    given_keys = f"{KEYS.to_worker().hex()}\n{KEYS.seal_value('Phone', '+911')}\n"
    answer = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS], input=given_keys, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["+911", KEYS.index_key]
