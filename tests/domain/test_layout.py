from importlib import resources

import pytest

from ingestd.domain import manifest
from ingestd.domain.column import DataType, Preference
from ingestd.domain.errors import FileRefused
from ingestd.domain.identity import IdentifierKind
from ingestd.domain.layout import Role, bind
from ingestd.domain.plan import ColumnRule, Format, Plan, Target

FILES = resources.files("ingestd.cli") / "samples"


def plan(target=Target.PROFILES, file_format=Format.CSV, **rules):
    columns = {header: ColumnRule(name=name, type=data_type) for header, (name, data_type) in rules.items()}
    return Plan(format=file_format, target=target, columns=columns)


def refusal(headers, made=None):
    with pytest.raises(FileRefused) as caught:
        bind(made or plan(), tuple(headers))
    return caught.value


@pytest.mark.rule("S97", "S114", "S116", "S117", "D5", "D25")
def test_the_profile_sample_binds_every_column():
    header = (FILES / "profiles.csv").read_text().splitlines()[0].split(",")
    layout = bind(manifest.parse((FILES / "profiles.manifest").read_bytes()).plan(), tuple(header))
    assert [(column.header, column.role, column.name, column.type) for column in layout.columns] == [
        ("time_stamp", Role.TS, "ts", DataType.STRING),
        ("identity", Role.IDENTIFIER, "identity", DataType.STRING),
        ("cookie_id", Role.IDENTIFIER, "objectId", DataType.STRING),
        ("id_name", Role.ATTRIBUTE, "Name", DataType.STRING),
        ("id_email", Role.ATTRIBUTE, "Email", DataType.EMAIL),
        ("id_phone", Role.ATTRIBUTE, "Phone", DataType.PHONE),
        ("id_phone.operation", Role.OPERATION, "id_phone", DataType.STRING),
        ("is_married", Role.ATTRIBUTE, "Married", DataType.BOOLEAN),
        ("age", Role.ATTRIBUTE, "Age", DataType.INTEGER),
        ("Playlist", Role.ATTRIBUTE, "Playlist", DataType.STRING),
        ("Playlist.operation", Role.OPERATION, "Playlist", DataType.STRING),
        ("MSG-SMS", Role.PREFERENCE, "MSG-sms", DataType.BOOLEAN),
        ("MSG-DNDSMS", Role.PREFERENCE, "MSG-dndSMS", DataType.BOOLEAN),
    ]
    assert {column.header: column.operation for column in layout.columns if column.operation is not None} == {
        "id_phone": 6,
        "Playlist": 10,
    }


@pytest.mark.rule("S117", "D19", "D35", "D55")
def test_reserved_targets_are_known_in_any_case_and_ignore_the_declared_type():
    made = plan(
        Target.EVENTS, when=("TS", DataType.LONG), who=("Guid", DataType.INTEGER), what=("EVTNAME", DataType.FLOAT)
    )
    layout = bind(made, ("when", "who", "what", "FBID", "gpid"))
    assert layout.one(Role.TS).position == 0
    assert layout.one(Role.EVENT_NAME).position == 2
    assert [(column.kind, column.name) for column in layout.of(Role.IDENTIFIER)] == [
        (IdentifierKind.OBJECT_ID, "objectId"), (IdentifierKind.FB_ID, "fbId"), (IdentifierKind.GP_ID, "gpId"),
    ]  # fmt: skip
    assert layout.of(Role.ATTRIBUTE) == ()


@pytest.mark.rule("D5", "S117")
@pytest.mark.parametrize("data_type", manifest.MANIFEST_TYPES)
def test_a_phone_and_an_address_are_such_in_any_case_and_whatever_type_is_declared(data_type):
    made = plan(a=("Phone", data_type), EMAIL=(None, data_type))
    found = bind(made, ("identity", "a", "EMAIL")).of(Role.ATTRIBUTE)
    assert [(each.name, each.type) for each in found] == [("Phone", DataType.PHONE), ("EMAIL", DataType.EMAIL)]


@pytest.mark.rule("D54")
def test_identifiers_of_other_doors_are_attributes_in_a_manifest_file():
    layout = bind(plan(), ("identity", "email", "mobile", "external_id"))
    assert [column.name for column in layout.of(Role.ATTRIBUTE)] == ["email", "mobile", "external_id"]


@pytest.mark.rule("S91", "S124", "D56")
def test_a_file_without_a_required_column_is_refused_with_the_sentence_of_the_row():
    assert refusal(["name"]).code == "identifier_missing"
    assert refusal(["name", "x"]).detail.startswith("Atleast one of identity / fbId / gpId / objectId is mandatory")
    error = refusal(["identity", "x"], plan(Target.EVENTS))
    assert error.code == "event_name_missing"
    assert error.detail.startswith("Event name is mandatory")


@pytest.mark.parametrize(("header", "hint"), [("identity;name", "';'"), ("identity\tname", "a tab"), ("a|b", "'|'")])
def test_a_file_with_another_delimiter_is_told_so(header, hint):
    error = refusal([header])
    assert error.code == "identifier_missing"
    assert hint in error.detail


@pytest.mark.rule("D46")
@pytest.mark.threat("T118")
def test_strange_names_are_kept_and_impossible_ones_refuse_the_file():
    strange = ("a.b", "$", "$.x", "a[0]", "'; drop table x;--", "__proto__", "%s", ":x", "é", "x" * 120, " padded ")
    layout = bind(plan(), ("identity", *strange))
    assert tuple(column.name for column in layout.of(Role.ATTRIBUTE)) == strange
    for name in ('a"b', "a\\", "", "  ", "a\nb", "x" * 121):
        assert "The name of column 2" in refusal(["identity", name]).detail


@pytest.mark.rule("D46")
def test_two_headers_equal_after_normalisation_refuse_the_file_and_case_only_warns():
    assert "stands twice" in refusal(["identity", "e\u0301", "\u00e9"]).detail
    layout = bind(plan(), ("identity", "Name", "name"))
    assert layout.warnings == ("Columns 'Name' and 'name' differ only in case; they are two properties.",)


@pytest.mark.rule("S104", "D46", "D54")
@pytest.mark.parametrize("header", [" MSG-dndSMS", "msg-email ", "ts ", " evtName", "\u00a0Identity", "guid "])
def test_a_space_at_the_edge_of_a_name_that_means_something_refuses_the_file(header):
    error = refusal(["identity", header])
    assert error.code == "file_unreadable"
    assert f"The name of column 2 would be {header.strip()!r} without the space at its edge. Remove it" in error.detail
    layout = bind(plan(**{header: (header.strip(), DataType.STRING)}), ("fbId", header))
    assert layout.warnings in {(), ("Column 2 names events, but the file's type is profile: it was ignored.",)}


@pytest.mark.rule("S104", "D46")
def test_spaces_at_an_edge_of_other_names_and_unknown_preferences_are_kept_and_warned_of():
    layout = bind(plan(), ("identity", " Age", "a b", "x.operation ", "msg-dndPush"))
    assert [column.name for column in layout.of(Role.ATTRIBUTE)] == [" Age", "a b", "x.operation ", "msg-dndPush"]
    assert layout.warnings == (
        "The space at the edge of ' Age' (column 2) is part of the property's name.",
        "The space at the edge of 'x.operation ' (column 4) is part of the property's name.",
        "'msg-dndPush' (column 5) is no preference but a property. The preferences are " + ", ".join(Preference) + ".",
    )
    events = bind(plan(Target.EVENTS), ("identity", "evtName", "MSG-dndPush"))
    assert events.warnings == ()


@pytest.mark.threat("T103")
def test_of_many_warnings_the_first_are_told_and_how_many_more_there_are():
    headers = [word for number in range(25) for word in (f"n{number}", f"N{number}")]
    *told, rest = bind(plan(), ("identity", *headers)).warnings
    assert len(told) == 10
    assert rest == "There are 15 more such warnings."


@pytest.mark.rule("S117")
def test_an_event_name_means_nothing_in_a_file_of_profiles():
    layout = bind(plan(), ("identity", "evtName"))
    assert layout.warnings == ("Column 2 names events, but the file's type is profile: it was ignored.",)
    assert bind(plan(Target.EVENTS), ("identity", "evtName")).warnings == ()


@pytest.mark.rule("D49")
@pytest.mark.parametrize(
    "headers", [["identity", "Identity"], ["guid", "objectId"], ["identity", "MSG-sms", "msg-SMS"]]
)
def test_two_headers_of_one_target_refuse_the_file(headers):
    error = refusal(headers)
    assert error.code == "manifest_incorrect"
    assert "both give" in error.detail


@pytest.mark.rule("D46")
def test_a_rule_may_not_give_a_column_the_name_of_another():
    error = refusal(["identity", "a", "b"], plan(a=("b", DataType.STRING)))
    assert "Columns 2 and 3 both give 'b'" in error.detail


@pytest.mark.rule("D23")
def test_an_operation_column_needs_its_attribute():
    assert "no column 'x'" in refusal(["identity", "x.operation"]).detail
    assert "takes no operation" in refusal(["identity", "ts", "ts.operation"]).detail
    assert "takes no operation" in refusal(["identity", "identity.operation"]).detail
    assert "no column 'X'" in refusal(["identity", "x", "X.operation"]).detail


@pytest.mark.rule("D23", "D49")
def test_what_is_told_of_a_preference_has_its_name_alone():
    taken = refusal(["identity", "msg-sms", "msg-sms.operation"]).detail
    assert taken == "'MSG-sms' takes no operation. Remove column 3."
    twice = refusal(["identity", "MSG-sms", "msg-SMS"]).detail
    assert twice == "Columns 2 and 3 both give 'MSG-sms'. Keep one of them."


@pytest.mark.rule("S97", "D23")
def test_the_word_operation_counts_in_any_case():
    layout = bind(plan(), ("identity", "Playlist", "Playlist.Operation"))
    assert [column.role for column in layout.columns] == [Role.IDENTIFIER, Role.ATTRIBUTE, Role.OPERATION]
    assert layout.columns[1].operation == 2
    assert "both hold the operations" in refusal(["identity", "x", "x.operation", "x.OPERATION"]).detail


@pytest.mark.rule("D23")
def test_a_rule_for_an_operation_column_means_nothing_and_is_warned_of():
    rules = {"x.operation": ("what", DataType.STRING), "y.operation": (None, DataType.STRING)}
    layout = bind(plan(**rules), ("identity", "x", "x.operation", "y", "y.operation"))
    assert layout.warnings == ("Column 'x.operation' holds operations: the name 'what' was ignored.",)


def test_a_manifest_may_only_name_columns_of_the_file():
    error = refusal(["identity"], plan(gone=("Gone", DataType.STRING)))
    assert error.code == "manifest_incorrect"
    assert "'gone'" in error.detail
