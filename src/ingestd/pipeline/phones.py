"""Phone numbers of a column to E.164 (D5): a mask decides most of them, the library `phonenumbers` the rest."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Final

import phonenumbers
import polars as pl
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

from ingestd.pipeline.cells import rewrite

_E164: Final = re.compile(r"\+[1-9][0-9]{3,14}")
_REMEMBERED: Final = 65_536
_KINDS: Final = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan",
    "voicemail",
)  # fmt: skip
"""The kinds of number that are valid, by the names of their patterns in the library."""


class Phones:
    """Gives the E.164 form of phone numbers, remembering what the library said of the latest ones.

    The library takes 15 µs a number, the mask 0.07.
    """

    def __init__(self) -> None:
        self._known = lru_cache(maxsize=_REMEMBERED)(e164)

    def normal(self, cells: pl.Series, odd: pl.Series) -> pl.Series:
        """The E.164 form of numbers with their country code, with or without `+`; null where that is no number.

        `odd` is what `odd_phone` says of the cells.
        """
        cell = pl.col("cell")
        marked = pl.when(cell.str.starts_with("+")).then(cell).otherwise("+" + cell)
        return rewrite(cells.to_frame("cell").select(marked)["cell"], odd, self._ask)

    def _ask(self, cells: pl.Series) -> pl.Series:
        return pl.Series([self._known(cell) for cell in cells], dtype=pl.String)


def odd_phone(cell: pl.Expr) -> pl.Expr:
    """True where the mask cannot say that a cell is a valid number."""
    return ~cell.str.contains(mobile_shape())


def e164(number: str) -> str | None:
    """The E.164 form of a `+` and digits if that is a valid number, else None."""
    if not _E164.fullmatch(number):
        return None
    if _is_hopeless(number):
        return None
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(parsed):
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


@cache
def mobile_shape() -> str:
    """A regular expression of mobile numbers that are valid for certain and in E.164 form but for the `+`.

    It joins the library's own patterns of mobile numbers. Regions that claim numbers by their leading digits are
    left to the library, which may give such a number to another region.
    """
    codes = []
    for code, regions in COUNTRY_CODE_TO_REGION_CODE.items():
        patterns = [_mobile(code, region) for region in regions]
        if any(patterns):
            codes.append(f"{code}(?:{'|'.join(dict.fromkeys(filter(None, patterns)))})")
    return rf"^\+?(?:{'|'.join(codes)})$"


def _is_hopeless(number: str) -> bool:
    """Whether a `+` and digits are no valid number for certain, which the library would take 80 µs to say.

    Such a number has no country's code, or none of that country's patterns fits the rest; where the rest begins with
    what the library takes off (a national prefix) the library decides.
    """
    for end in range(2, 5):
        shape = _shape_of_country(number[1:end])
        if shape is not None:
            return not shape.match(number[end:])
    return True


@cache
def _shape_of_country(code: str) -> re.Pattern[str] | None:
    """What follows a country's code in a number that may be valid, or None where there is no such code."""
    regions = COUNTRY_CODE_TO_REGION_CODE.get(int(code)) if code.isdigit() else None
    if regions is None:
        return None
    known = [PhoneMetadata.metadata_for_region_or_calling_code(int(code), region) for region in regions]
    patterns = [
        f"(?:{kind.national_number_pattern})$"
        for metadata in known
        if metadata is not None
        for kind in (getattr(metadata, name) for name in _KINDS)
        if kind is not None and kind.national_number_pattern
    ]
    taken_off = known[0] and known[0].national_prefix_for_parsing
    return re.compile("|".join(dict.fromkeys([*patterns, *([f"(?:{taken_off})"] if taken_off else [])])))


def _mobile(code: int, region: str) -> str | None:
    """One region's pattern of mobile numbers after the country code, or None if the mask may not decide by it."""
    metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    if metadata is None or metadata.leading_digits is not None or metadata.mobile is None:
        return None
    pattern: str | None = metadata.mobile.national_number_pattern
    return pattern and pattern.replace(r"\d", "[0-9]")
