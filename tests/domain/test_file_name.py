import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.domain.file_name import safe_name


@pytest.mark.threat("T20", "T24")
@pytest.mark.parametrize(
    "name", ["events.csv", "Ünï (2)_a-b.tsv", "_x", "9", "x" * 200, "日本.csv", "ग्राहक.csv", "ไฟล์.csv"]
)
def test_a_plain_name_is_safe(name):
    assert safe_name(name) == name


@pytest.mark.threat("T20", "T24")
@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", ".hidden", "a/b", "a\\b", "/etc/passwd", "C:x", "a\0b", "a\nb", "-x", " x", "x" * 201,
        "a:b", "a*b", "~x", "a\u202eb", "a\u200bb", "$x", "a;b", "x\n", "\u0301x", "a\ufe0fb", "a\u034fb",
        "x" * 150 + "\u0301" * 51,
    ],
)  # fmt: skip
def test_a_name_that_could_mean_a_path_an_option_or_a_trick_is_not(name):
    assert safe_name(name) is None


def test_composed_and_decomposed_names_are_one():
    assert safe_name("e\u0301.csv") == safe_name("\u00e9.csv") == "\u00e9.csv"


@pytest.mark.threat("T20")
@given(st.text(max_size=250))
def test_a_safe_name_is_short_flat_and_stays_as_it_is(name):
    safe = safe_name(name)
    if safe is not None:
        assert safe_name(safe) == safe
        assert len(safe) <= 200
        assert safe[0] not in ".- "
        assert not set(safe) & set("/\\:\0\n\r\t")
