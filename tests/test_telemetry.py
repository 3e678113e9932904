"""Log lines are one JSON object each and never quote data (P9, T101, T102)."""

import io
import json
import logging
import os
import re
import sys
import threading
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from ingestd import telemetry
from ingestd.domain.errors import FileRefused

CANARY = "canary-4711@example.com"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
log = telemetry.logger("ingestd.tests.telemetry")


@pytest.fixture
def stream(monkeypatch):
    """What `configure` writes to; everything it changes in the process is put back."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    owners = [logging.getLogger(name) for name in ("", "ingestd", "dbos")]
    before = [(owner, list(owner.handlers), owner.level, owner.propagate) for owner in owners]
    stream = io.StringIO()
    telemetry.configure(pretty=False, stream=stream)
    yield stream
    for owner, handlers, level, propagate in before:
        owner.handlers[:] = handlers
        owner.setLevel(level)
        owner.propagate = propagate


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def logger_to(stream, *, pretty):
    target = logging.getLogger("tests.alone")
    target.propagate = False
    target.handlers[:] = [telemetry.output(stream, pretty=pretty)]
    return target


def test_a_line_is_one_json_object_with_time_level_logger_event_and_fields(stream):
    log.info("File received", file=UUID(int=7), size_bytes=12)
    [line] = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "ingestd.tests.telemetry",
        "event": "File received",
        "file": "00000000-0000-0000-0000-000000000007",
        "size_bytes": 12,
    }


def test_configuring_twice_writes_once(stream):
    telemetry.configure(pretty=False, stream=stream)
    log.info("Once")
    logging.getLogger("dbos").warning("Once too")
    assert [line["event"] for line in lines(stream)] == ["Once", "Once too"]


def test_a_level_hides_what_lies_below(stream):
    telemetry.configure(level="WARNING", pretty=False, stream=stream)
    log.info("Hidden")
    log.warning("Seen")
    assert [line["event"] for line in lines(stream)] == ["Seen"]


def test_context_adds_its_fields_to_the_lines_it_encloses(stream):
    with telemetry.context(ingestion="ing_1", request="req_1"):
        log.info("Inside")
    log.info("Outside")
    inside, outside = lines(stream)
    assert (inside["ingestion"], inside["request"]) == ("ing_1", "req_1")
    assert "ingestion" not in outside


@pytest.mark.threat("T101")
@pytest.mark.parametrize("pretty", [False, True])
@given(text=st.text() | st.sampled_from(['x\n{"level":"INFO","event":"forged"}', "\x1b[2J", "\u202e", "\r", "\udcff"]))
def test_no_text_breaks_out_of_its_line(pretty, text):
    stream = io.StringIO()
    target = logger_to(stream, pretty=pretty)
    target.warning(text)
    telemetry.logger_of(target).warning("Event", name=text, **{f"k{text}": [text, {text: text}]})
    written = COLOUR.sub("", stream.getvalue()) if pretty else stream.getvalue()
    first, second, rest = written.split("\n")
    assert (first + second).isprintable()
    assert rest == ""
    if not pretty:
        assert [line["level"] for line in lines(stream)] == ["warning", "warning"]


def test_long_values_are_cut(stream):
    log.info("Long", text="x" * 100_000, many=list(range(100_000)), deep=[[[[[["in"]]]]]])
    assert len(stream.getvalue()) < 2_000


@pytest.mark.threat("T102")
def test_a_value_that_is_not_plain_is_named_by_its_type(stream):
    class Row:
        def __repr__(self):
            return CANARY

    log.info("Row", row=Row(), data=CANARY.encode(), rows=[Row()])
    [line] = lines(stream)
    assert (line["row"], line["data"], line["rows"]) == ("<Row>", "<bytes>", ["<Row>"])


@pytest.mark.threat("T102", "T154")
@pytest.mark.parametrize(
    "fields",
    [
        {"password": CANARY},
        {"smtp_password": CANARY},
        {"headers": {"Authorization": CANARY, "Set-Cookie": CANARY}},
        {"secrets": [CANARY]},
        {"note": "isk_01k9abcdefghjkmnpqrstvwxyz_" + CANARY},
        {"note": "whsec_" + CANARY},
        {"url": f"postgresql://me:{CANARY.replace('@', '')}@host/db"},
        {"note": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}"},
    ],
)
def test_secrets_are_masked_by_name_and_by_shape(stream, fields):
    log.info("Event", **fields)
    assert "canary" not in stream.getvalue()
    assert "***" in stream.getvalue()


@pytest.mark.threat("T102")
def test_an_exception_shows_type_and_places_but_no_message_save_our_own(stream):
    def parse():
        raise ValueError(CANARY)

    try:
        try:
            parse()
        except ValueError as error:
            raise FileRefused("The file is not UTF-8.", code="encoding") from error
    except FileRefused:
        log.exception("Check failed")
    [line] = lines(stream)
    error = line["error"]
    assert (error["type"], error["code"]) == ("ingestd.domain.errors.FileRefused", "encoding")
    assert error["detail"] == "The file is not UTF-8."
    assert error["cause"]["type"] == "builtins.ValueError"
    assert error["cause"]["at"][-1].endswith(" parse")
    assert "canary" not in stream.getvalue()


@pytest.mark.threat("T102")
def test_a_database_error_shows_its_sqlstate_but_neither_statement_nor_parameters():
    driver = psycopg.errors.UniqueViolation(f"Key (email)=({CANARY}) already exists.")
    described = telemetry.describe(IntegrityError(f"INSERT {CANARY}", {"email": CANARY}, driver))
    assert described["code"] == "23505"
    assert "canary" not in json.dumps(described)


def test_an_operating_system_error_shows_its_errno_but_not_the_path():
    described = telemetry.describe(FileNotFoundError(2, os.strerror(2), CANARY))
    assert (described["code"], described["detail"]) == ("2", os.strerror(2))
    assert "canary" not in json.dumps(described)


def test_every_member_of_an_exception_group_is_described():
    described = telemetry.describe(ExceptionGroup("both", [ValueError(CANARY), KeyError(CANARY)]))
    assert [each["type"] for each in described["errors"]] == ["builtins.ValueError", "builtins.KeyError"]
    assert "canary" not in json.dumps(described)


@pytest.mark.threat("T102")
@pytest.mark.parametrize("name", ["uvicorn.error", "dbos", "asyncssh", "sqlalchemy.engine", "alembic", "asyncio"])
def test_a_library_is_heard_from_warnings_on_and_without_what_it_filled_in(stream, name):
    library = logging.getLogger(name)
    library.info("Started")
    library.warning("Login of %s failed", CANARY)
    library.error(f"Exception in queue thread: {CANARY}\n{CANARY}")  # as DBOS does
    library.error("Exception in workflow:", exc_info=ValueError(CANARY))  # as DBOS does
    library.error(ValueError(CANARY))  # as uvicorn does
    assert [line["event"] for line in lines(stream)] == [
        "Login of %s failed",
        "Exception in queue thread",
        "Exception in workflow",
        "ValueError",
    ]
    assert [line["error"]["type"] for line in lines(stream)[2:]] == ["builtins.ValueError"] * 2
    assert "canary" not in stream.getvalue()


def test_uncaught_exceptions_are_logged_without_their_message(stream, capsys):
    def fail():
        raise ValueError(CANARY)

    thread = threading.Thread(target=fail, name="reader")
    thread.start()
    thread.join()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert [line["error"]["type"] for line in lines(stream)] == ["builtins.ValueError"] * 2
    assert "canary" not in stream.getvalue() + capsys.readouterr().err


def test_a_line_that_cannot_be_written_is_dropped_in_silence(capsys):
    closed = io.StringIO()
    closed.close()
    logger_to(closed, pretty=False).warning(CANARY)
    assert capsys.readouterr() == ("", "")
