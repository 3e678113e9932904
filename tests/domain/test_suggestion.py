"""Suggestions for a mapping."""

import pytest

from ingestd.domain import suggestion
from ingestd.domain.column import DataType
from ingestd.domain.data_source import Goal
from ingestd.domain.suggestion import earlier_goals, suggest

KNOWN = {
    name: Goal(name, format_)
    for name, format_ in (("crmid", DataType.STRING), ("hm", DataType.PHONE), ("slot_num", DataType.INTEGER))
}


def test_columns_are_suggested_by_name_synonym_likeness_and_what_was_mapped_before():
    columns = {"CRM_ID": None, "phone": DataType.PHONE, "slot_number": DataType.INTEGER, "mail": None, "zzz": None}
    found = {each.column: (each.attribute, each.score) for each in suggest(columns, KNOWN, {})}
    assert found["CRM_ID"] == ("crmid", 1.0)
    assert found["phone"] == ("mobile", 0.8)
    assert found["mail"] == ("email", 0.8)
    assert found["slot_number"][0] == "slot_num"
    assert "zzz" not in found
    assert (
        suggest({"phone": None}, KNOWN, earlier_goals([[("phone", "hm")], [("phone", "mobile")]]))[0].attribute == "hm"
    )


def test_a_format_that_does_not_fit_counts_against_a_goal_and_no_goal_is_given_twice():
    assert suggest({"slot_num": DataType.EMAIL}, KNOWN, {}) == []
    found = suggest({"crmid": None, "crm_id": None}, KNOWN, {})
    assert [each.attribute for each in found].count("crmid") == 1


def test_names_that_are_alike_are_looked_for_as_long_as_that_takes_no_time(monkeypatch: pytest.MonkeyPatch):
    columns = {"CRM_ID": None, "slot_numbr": None, "mail": None}
    assert len(suggest(columns, KNOWN, {})) == 3
    monkeypatch.setattr(suggestion, "COMPARED", 0)
    assert [each.attribute for each in suggest(columns, KNOWN, {})] == ["crmid", "email"]
