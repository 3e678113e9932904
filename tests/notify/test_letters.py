"""What a mail says at each milestone, as files beside this one: INGESTD_TEST_LETTERS=1 writes them anew."""

from __future__ import annotations

import csv
import io
import os
import ssl
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.notify.post_office import NAME, PASSWORD, post_office
from tests.notify.world import LOOPBACK

from ingestd.domain.ids import Prefix, show
from ingestd.domain.notice import MILESTONES, NoticeType
from ingestd.domain.recipient import normal_address
from ingestd.ingest.work import UNREPORTED
from ingestd.notify.letters import Attachment, House, letter, problems_file
from ingestd.notify.smtp import MailServer
from ingestd.store.messages import Claimed

LETTERS = Path(__file__).parent / "letters"
NOW = datetime(2026, 11, 25, 20, 15, 30, tzinfo=UTC)
HOUSE = House("ingestd <post@cdp.test>", "https://cdp.test", 30, 7)
INGESTION = {
    "id": show(Prefix.INGESTION, UUID(int=7)),
    "status": "in_progress",
    "file": {"name": "profiles.csv"},
    "manifest": {"name": "day1.manifest"},
    "data_source": None,
    "target": "profiles",
    "dry_run": False,
    "counts": {"read": 100, "accepted": 88, "rejected": 12, "blank": 0},
    "error": None,
    "error_file": None,
    "warnings": [],
    "started_at": "2026-11-25T18:15:30Z",
}
ERROR = {
    "message": "Incorrect details in manifest file",
    "detail": "'type' must be 'profile' or 'event'.",
    "remedy": "Correct the manifest and upload it under a new name.",
}
REJECTED = {"status": "completed", "error_file": {"size_bytes": 912, "rows": 12}}
FILE = Attachment("profiles.errors.csv", b'"id","Failure Description"\r\n"1","Phone number is not valid"\r\n')
TOLD: dict[str, tuple[str, dict[str, Any], Attachment | None]] = {
    "scheduled": (
        "ingestion.scheduled",
        INGESTION
        | {"status": "scheduled", "manifest": None, "data_source": {"name": "CRM"}, "counts": {"read": 0}}
        | {"started_at": None},
        None,
    ),
    "picked_up": ("ingestion.picked_up", INGESTION, None),
    "delayed": ("ingestion.delayed", INGESTION, None),
    "completed": (
        "ingestion.completed",
        INGESTION | {"status": "completed", "counts": INGESTION["counts"] | {"accepted": 100, "rejected": 0}},
        None,
    ),
    "completed_with_rejected_rows": ("ingestion.completed", INGESTION | REJECTED | {"warnings": ["A warning."]}, FILE),
    "completed_for_a_data_source": (
        "ingestion.completed",
        INGESTION | REJECTED | {"manifest": None, "data_source": {"name": "CRM"}},
        FILE,
    ),
    "completed_for_a_segment": (
        "ingestion.completed",
        INGESTION | REJECTED | {"manifest": None, "target": "segment"},
        FILE,
    ),
    "completed_with_a_large_error_file": ("ingestion.completed", INGESTION | REJECTED, None),
    "held": (
        "ingestion.held",
        INGESTION | {"held": {"leaving": 60, "of": 100}, "segment": {"name": "Loyal"}},
        None,
    ),
    "failed": ("ingestion.failed", INGESTION | REJECTED | {"status": "failed", "error": ERROR}, FILE),
    "manifest_refused": (
        "ingestion.failed",
        INGESTION | {"status": "failed", "file": None, "error": ERROR, "counts": {"read": 0}},
        problems_file("day1.manifest", [{"pointer": "/type", "code": "unknown", "detail": "Must be known."}]),
    ),
    "run_failed": (
        "run.failed",
        {"id": "run_9", "due_at": "2026-11-25T20:00:00Z", "error": ERROR},
        None,
    ),
    "host_key_changed": ("connection.host_key_changed", {"id": "con_7", "name": "Warehouse"}, None),
    "webhook_disabled": (
        "webhook.disabled",
        {"id": "whk_7", "name": "CRM", "disabled_reason": "failing"},
        None,
    ),
    "invited": ("recipient.invited", {"id": "rcp_7"}, None),
}


async def here(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


def claimed(kind: str, data: dict[str, Any], **more: Any) -> Claimed:
    given = {"address": "ann@example.org", "account_name": "Acme", "time_zone": "Asia/Kolkata"} | more
    return Claimed(
        id=UUID(int=5), lease=NOW, failures=0, account_id=UUID(int=1), notice_id=UUID(int=2), type=kind,
        subject_id=UUID(int=7), data=data, created_at=NOW, data_keys=b"", index_key=b"", **given,
    )  # fmt: skip


def read(mail: EmailMessage) -> EmailMessage:
    """A mail as a mail program reads it."""
    return message_from_bytes(mail.as_bytes(), policy=policy.default)


def shown(mail: EmailMessage) -> str:
    """Headers, then the text, the HTML and the attachments, decoded."""
    headers = [f"{name}: {value}" for name, value in mail.items() if not name.startswith(("Content-", "MIME"))]
    parts = [part for part in mail.walk() if not part.is_multipart()]
    texts = [
        f"=== {part.get_content_type()} {part.get_filename() or ''}".strip() + f"\n{part.get_content()}"
        for part in parts
    ]
    return "\n".join([*headers, "", *texts]).replace("\r\n", "\n")


@pytest.mark.rule("D18", "S134")
def test_a_manifest_whose_name_had_been_used_before_is_called_by_it():
    told = INGESTION | {"status": "failed", "file": None, "manifest": None, "manifest_name": "x.manifest"}
    mail = letter(HOUSE, claimed("ingestion.failed", told | {"error": ERROR}))
    assert mail["Subject"] == "x.manifest: failed"
    assert "Manifest:    x.manifest" in shown(mail)


@pytest.mark.rule("S129", "S130", "S131", "S132")
@pytest.mark.parametrize("name", TOLD)
async def test_each_milestone_has_its_letter(name: str, certified: ssl.SSLContext, trusting: ssl.SSLContext):
    """As it comes to a mail server, over TLS and after a login."""
    kind, data, attachment = TOLD[name]
    made = letter(HOUSE, claimed(kind, data), attachment=attachment, code="abcd-efgh-ijkl", owner="loyalty")
    async with post_office(certified) as office:
        login = {"username": NAME, "password": PASSWORD, "tls": trusting, "resolver": here, "allow": LOOPBACK}
        server = MailServer(host="mail.test", port=office.port, security="starttls", sender=HOUSE.sender, **login)
        assert (await server.send(made, "ann@example.org")).code == "delivered"
    assert office.encrypted == [True]
    text = shown(office.mails[0])
    file = LETTERS / f"{name}.txt"
    if os.environ.get("INGESTD_TEST_LETTERS"):
        file.write_text(text)
    assert text == file.read_text()


def test_every_type_that_is_mailed_has_a_letter():
    assert {kind for kind, _, _ in TOLD.values()} == {*MILESTONES, NoticeType.RECIPIENT_INVITED}


@pytest.mark.rule("D39")
def test_a_letter_says_why_an_error_file_is_not_attached_and_how_to_get_it():
    mail = letter(HOUSE, claimed("ingestion.completed", INGESTION | REJECTED), personal=True)
    text = " ".join(mail.get_body(("plain",)).get_content().split())
    assert "may hold personal data. For 30 days it can be downloaded with an API key" in text
    assert "(profiles:read_pii); if you have none, hand this mail on" in text


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_letter_speaks_of_no_error_file_where_there_is_none(*, dry_run: bool):
    told = INGESTION | REJECTED | {"dry_run": dry_run, "error_file": None, "warnings": [UNREPORTED]}
    text = " ".join(letter(HOUSE, claimed("ingestion.completed", told)).get_body(("plain",)).get_content().split())
    assert "too large" not in text
    assert "Mend the rows" not in text
    assert f"Note: {UNREPORTED}" in text


@pytest.mark.threat("T104", "T105")
def test_no_name_breaks_out_of_its_place():
    name = "a\r\nBcc: eve@evil.test\r\n\r\n<script>alert(1)</script>.csv"
    data = INGESTION | {"file": {"name": name}, "warnings": ["<b>bold</b>"]}
    made = letter(HOUSE, claimed("ingestion.completed", data, account_name="Acme\nX-Evil: 1"), attachment=FILE)
    mail = read(made)
    assert set(mail.keys()) == set(
        read(letter(HOUSE, claimed("ingestion.completed", INGESTION), attachment=FILE)).keys()
    )
    assert mail["Bcc"] is mail["X-Evil"] is None
    html = mail.get_body(("html",)).get_content()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<b>" not in html


@pytest.mark.threat("T104")
@pytest.mark.parametrize("name", ["=?utf-8?q?x=0D=0ABcc:_eve@evil.test?=", "=?utf-7?q?+2AA-?="])
def test_a_name_that_looks_like_an_encoded_header_is_a_name(name: str):
    told = {"id": "whk_7", "name": name, "disabled_reason": "gone"}
    mail = read(letter(HOUSE, claimed("webhook.disabled", told)))
    assert mail["Bcc"] is None
    assert mail["Subject"] == f"{name.replace('=?', '= ?')}: the webhook is disabled"


@pytest.mark.threat("T104")
@pytest.mark.parametrize("address", ["ann@example.org\r\nBcc: eve@evil.test", "ann@example.org, eve@evil.test"])
def test_an_address_that_is_more_than_one_makes_no_letter(address: str):
    with pytest.raises(ValueError):  # noqa: PT011 -- the library's
        letter(HOUSE, claimed("ingestion.completed", INGESTION, address=address))


@pytest.mark.threat("T100")
def test_what_is_wrong_with_a_manifest_is_a_safe_csv_file():
    problems = [
        {"pointer": "/columns/=1+1", "code": "type", "detail": "=1+1"},
        {"pointer": "", "code": "json", "detail": 'a "b"'},
    ]
    file = problems_file("x.manifest", problems)
    rows = list(csv.reader(io.StringIO(file.content.decode())))
    assert file.name == "x.manifest.errors.csv"
    assert rows[0][-1] == "Failure Description"
    assert rows[1:] == [["/columns/=1+1", "type", "'=1+1"], ["", "json", 'a "b"']]


def test_an_international_address_is_written_in_its_ascii_form():
    mail = letter(HOUSE, claimed("ingestion.completed", INGESTION, address="ann@bücher.example"))
    assert str(mail["To"]) == "ann@xn--bcher-kva.example"


@pytest.mark.rule("D39")
@pytest.mark.parametrize(
    ("written", "domain"), [("faß.example", "xn--fa-hia.example"), ("βόλος.example", "xn--nxasmm1c.example")]
)
def test_an_address_stays_at_its_domain_whatever_letters_that_has(written: str, domain: str):
    """Letters that folding, or an older form of such names, makes others of: ß, a final sigma."""
    address = normal_address(f"Ann@{written}")
    assert address == f"ann@{written}"
    assert str(letter(HOUSE, claimed("ingestion.completed", INGESTION, address=address))["To"]) == f"ann@{domain}"


@pytest.mark.rule("D39", "D15")
def test_a_replace_that_is_held_says_from_where_people_would_leave_not_where_they_would_be_put():
    told = INGESTION | {"held": {"leaving": 60, "of": 100}, "data_source": {"name": "CRM"}, "segment": {"name": "VIP"}}
    text = letter(HOUSE, claimed("ingestion.held", told)).get_body(("plain",)).get_content()
    assert "would remove 60 of the 100 members of CRM." in text


def test_a_letter_is_the_same_in_every_attempt_but_for_its_boundary():
    first, second = (letter(HOUSE, claimed("ingestion.completed", INGESTION)) for _ in range(2))
    assert shown(read(first)) == shown(read(second))


@pytest.mark.parametrize("why", ["No file of the segment was there.", None])
def test_a_run_without_an_error_says_why(why: str | None):
    told = {"id": "run_9", "due_at": "2026-11-25T20:00:00Z", "error": None, "why": why}
    text = letter(HOUSE, claimed("run.failed", told)).get_body(("plain",)).get_content()
    assert (why or "The execution log has more.") in text
