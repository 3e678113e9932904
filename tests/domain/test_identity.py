import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.domain.column import DataType
from ingestd.domain.identity import KIND_OF_WORD, MANIFEST_KINDS, IdentifierKind, normalise


@pytest.mark.rule("D27")
@pytest.mark.threat("T117")
@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("x" * 1023, "x" * 1023), ("x" * 1024, None), ("", None), (" \t", None), ("\u00a0", None), (" x ", "x"),
        ("e\u0301", "\u00e9"), ("e\u0301" * 1023, "\u00e9" * 1023), ("a\u200b", None), ("\u202ex", None),
        ("a\x00b", None), ("\ue000", None), ("\ud800", None), ("\u0130", "\u0130"), ("\ufb01", "\ufb01"),
    ],
)  # fmt: skip
def test_an_identifier_has_one_normal_form_or_none(value, normal):
    assert normalise(value) == normal


@pytest.mark.rule("D5")
@pytest.mark.threat("T117")
@pytest.mark.parametrize(
    ("value", "normal"),
    [
        (" Ann.Lee@Example.ORG ", "Ann.Lee@example.org"), ("ann@BÜCHER.example", "ann@bücher.example"),
        ("A@B@C.D", "A@B@c.d"), ("ann", "ann"), ("Ann@", "Ann@"),
    ],
)  # fmt: skip
def test_the_domain_of_an_address_is_the_same_in_every_case_the_mailbox_is_not(value, normal):
    assert normalise(value, DataType.EMAIL) == normal
    assert normalise("Ann@Example.ORG") == "Ann@Example.ORG"


@pytest.mark.threat("T117")
@given(st.text())
def test_the_normal_form_is_its_own_normal_form_and_the_same_for_every_composition(value):
    normal = normalise(value)
    assert normal is None or normalise(normal) == normal
    assert normalise(unicodedata.normalize("NFD", value)) == normal


@pytest.mark.rule("D35", "D54")
def test_kinds_have_a_precedence_and_words_of_any_case():
    assert sorted(IdentifierKind) == [KIND_OF_WORD[word] for word in
        ("identity", "objectid", "fbid", "gpid", "external_id", "email", "mobile")]  # fmt: skip
    assert KIND_OF_WORD["guid"] is IdentifierKind.OBJECT_ID
    assert [kind.word for kind in MANIFEST_KINDS] == ["identity", "objectId", "fbId", "gpId"]
