"""`ingestd check`: what a producer's pipeline sees of it."""

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from ingestd.cli import app, samples
from ingestd.domain.rejection import IDENTIFIER_SENTENCE

GOOD = {"type": "profile", "fileName": "x.csv", "clientEmail": "data@example.org"}
INTEGER_AGE = {"columns": {"Age": {"dataType": "INTEGER"}}}


@pytest.fixture
def check(tmp_path):
    """Run the command on some bytes and a manifest; gives its exit code and, with --json, its verdict."""

    def run(data, *options, name="x.csv", manifest="x.manifest", **changes):
        (tmp_path / name).write_bytes(data)
        (tmp_path / manifest).write_text(json.dumps(GOOD | changes))
        ran = CliRunner().invoke(app, ["check", str(tmp_path / name), str(tmp_path / manifest), *options])
        return ran.exit_code, json.loads(ran.stdout) if "--json" in options else ran.stdout

    return run


def counts(verdict):
    return {name: count for name, count in verdict["counts"].items() if count}


def test_a_good_file_ends_with_0(check):
    code, verdict = check(b"identity,Age\nann,1\n\nbob,2\n", "--json")
    assert code == 0
    assert verdict == {
        "file": "x.csv",
        "manifest": "x.manifest",
        "target": "profiles",
        "status": "completed",
        "counts": verdict["counts"],
        "reasons": {},
        "error": None,
        "error_file": None,
        "warnings": [],
    }
    assert counts(verdict) == {"read": 3, "accepted": 2, "blank": 1}


@pytest.mark.rule("S128", "D34")
def test_rejected_rows_are_counted_by_reason_and_written_where_asked_for(check, tmp_path):
    errors = tmp_path / "rejected.csv"
    data = b"identity,Age,Phone\nann,1,\nbob,old,12\n,3,\nzoe,x,\ncut,1\n"
    code, verdict = check(data, "--json", "--errors", str(errors), **INTEGER_AGE)
    assert code == 3
    assert verdict["status"] == "completed"
    assert counts(verdict) == {"read": 5, "accepted": 1, "rejected": 4}
    assert verdict["reasons"] == {
        "integer_invalid": 2, "field_count": 1, "identifier_missing": 1, "phone_invalid": 1,
    }  # fmt: skip
    assert verdict["error_file"] == str(errors)
    header, *rows = csv.reader(io.StringIO(errors.read_text()))
    assert header == ["identity", "Age", "Phone", "Failure Description"]
    assert rows[0][3] == "Age: not an INTEGER of 32 bits (LONG has 64); Phone number is not valid"
    assert len(rows) == 4

    code, verdict = check(b"identity,Age\nann,1\n", "--json", "--errors", str(errors), **INTEGER_AGE)
    assert (code, verdict["error_file"], errors.exists()) == (0, None, False)


@pytest.mark.rule("D54")
def test_a_row_that_ties_two_people_of_the_file_is_found(check, tmp_path):
    data = b"identity,objectId,A\nann,cookie,1\nbob,cookie,2\n,,3\n"
    code, verdict = check(data, "--json", "--errors", str(tmp_path / "errors"))
    assert (code, verdict["reasons"]) == (3, {"identifier_missing": 1, "identifiers_of_two_people": 1})
    assert (tmp_path / "errors").read_text().splitlines()[1:] == [
        '"bob","cookie","2","identifiers belong to two people"',
        f'"","","3","{IDENTIFIER_SENTENCE}"',
    ]


@pytest.mark.parametrize(
    ("data", "changes", "error"),
    [
        (b"", {}, "file_unreadable"),
        (b"name\nann\n", {}, "identifier_missing"),
        (b"identity\nann\n", {"type": "other"}, "manifest_incorrect"),
        (b"identity\nann\n", {"clientEmail": "nobody"}, "manifest_incorrect"),
        (b"identity,Age\nann,old\n", INTEGER_AGE, "nothing_applied"),
    ],
)
def test_what_would_fail_ends_with_4_and_says_why(check, data, changes, error):
    code, verdict = check(data, "--json", **changes)
    assert (code, verdict["status"], verdict["error"]["code"]) == (4, "failed", error)
    assert verdict["error"]["detail"]
    assert verdict["error"]["remedy"]


def test_what_is_called_otherwise_than_the_manifest_says_is_worth_a_warning(check):
    _, verdict = check(b"identity\nann\n", "--json", name="y.csv", manifest="y.json")
    assert [warning.split(",")[0] for warning in verdict["warnings"]] == [
        "The manifest names 'x.csv'",
        "The manifest is called 'y.json'; its name must end in .manifest.",
    ]


def test_a_data_file_ends_in_csv(check):
    code, verdict = check(b"identity\nann\n", "--json", name="x.txt", fileName="x.txt")
    assert (code, verdict["error"]["message"]) == (4, "File couldn't be read")


def test_without_json_it_is_said_in_words(check):
    code, said = check(b"identity,Age\nann,1\nbob,old\n", **INTEGER_AGE)
    assert code == 3
    assert "x.csv: 2 rows read, 1 accepted, 1 rejected, 0 blank" in said
    assert "integer_invalid" in said
    code, said = check(b"", type="other")
    assert code == 4
    assert "Incorrect details in manifest file" in said
    assert "/type: 'type' must be 'profile' or 'event'." in said


def test_a_cell_is_never_said(check):
    for options in ((), ("--json",)):
        _, said = check(b"identity,Age\nCANARY,CANARY\n", *options, **INTEGER_AGE)
        assert "CANARY" not in str(said)


@pytest.mark.parametrize("errors", ["x.csv", "x.manifest", "nowhere/errors.csv"])
def test_the_error_file_takes_no_input_s_place(check, tmp_path, errors):
    data = b"identity,Age\nann,old\n"
    code, _ = check(data, "--errors", str(tmp_path / errors), **INTEGER_AGE)
    assert code == 2
    assert (tmp_path / "x.csv").read_bytes() == data


def test_nothing_else_is_left_behind(check, tmp_path):
    check(b"identity\nann\n\xff\n", "--errors", str(tmp_path / "errors.csv"))
    assert {path.name for path in tmp_path.iterdir()} == {"x.csv", "x.manifest", "errors.csv"}
    check(b"identity\n", "--errors", str(tmp_path / "errors.csv"), type="other")
    assert {path.name for path in tmp_path.iterdir()} == {"x.csv", "x.manifest"}


@pytest.mark.rule("S95", "S96", "S116")
@pytest.mark.parametrize(("stem", "rows"), [("profiles", 5), ("events", 4)])
def test_the_samples_of_the_documents_pass_the_check(stem, rows):
    folder = f"{samples.__path__[0]}/{stem}"
    ran = CliRunner().invoke(app, ["check", f"{folder}.csv", f"{folder}.manifest"])
    assert (ran.exit_code, ran.stdout) == (0, f"{stem}.csv: {rows} rows read, {rows} accepted, 0 rejected, 0 blank\n")
