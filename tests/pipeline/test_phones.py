"""The mask of phone numbers never says more than the library, over numbers made from the library's own patterns."""

import phonenumbers
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.pipeline.phones import Phones, e164, mobile_shape, odd_phone


def countries(mask):
    """The alternatives of the mask, one for each country code."""
    found, depth, start = [], 0, 0
    inner = mask.removeprefix(r"^\+?(?:").removesuffix(")$")
    for end, char in enumerate(inner + "|"):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "|" and not depth:
            found.append(inner[start:end])
            start = end + 1
    return found


PATTERNS = countries(mobile_shape())
CODES = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)


def test_the_mask_knows_most_countries():
    assert len(PATTERNS) > 180


@pytest.mark.rule("D5")
@given(st.sampled_from(PATTERNS).flatmap(lambda pattern: st.from_regex(pattern, fullmatch=True)))
def test_what_the_mask_accepts_the_library_finds_valid_and_in_its_final_form(number):
    assert not pl.select(odd=odd_phone(pl.lit(number)))["odd"].item()
    assert e164(f"+{number}") == f"+{number}"


@pytest.mark.rule("D5")
@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_an_example_number_of_every_region_is_accepted_with_and_without_plus(region):
    example = phonenumbers.example_number(region)
    if example is None:
        pytest.skip("the library has no example for it")
    expected = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
    cells = pl.Series("cell", [expected, expected[1:], None])
    odd = cells.to_frame().select(odd_phone(pl.col("cell"))).to_series()
    assert Phones().normal(cells, odd).to_list() == [expected, expected, None]


@pytest.mark.rule("D5")
@given(st.sampled_from(CODES), st.text("0123456789", min_size=2, max_size=12))
def test_what_is_refused_without_asking_the_library_is_no_number_to_it_either(code, rest):
    number = f"+{code}{rest}"
    assert (e164(number) is None) == (asked(number) is None)


def asked(number):
    """The library's own answer."""
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None
    return parsed if phonenumbers.is_valid_number(parsed) else None


def test_a_column_of_wrong_numbers_hardly_asks_the_library(monkeypatch):
    numbers = [f"+{code}{n}" for n in range(90, 110) for code in CODES]
    questions = []
    monkeypatch.setattr(phonenumbers, "is_valid_number", lambda parsed: bool(questions.append(parsed)))
    assert [e164(number) for number in numbers] == [None] * len(numbers)
    assert len(questions) < len(numbers) / 10
