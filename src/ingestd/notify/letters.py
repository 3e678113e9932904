"""Letters: what a notice says as a mail, in plain text and HTML, from one template for each milestone.

A template's first line is the subject, what follows are paragraphs. Everything in it is plain text: names of files and
of accounts are escaped in the HTML (T105), and a header cannot hold a line break, not an encoded one either (T104).
"""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Any, Final
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from ingestd.domain import ids
from ingestd.domain.column import guarded
from ingestd.domain.ids import Prefix
from ingestd.domain.notice import NoticeType
from ingestd.domain.recipient import ascii_address
from ingestd.store.messages import Claimed

WIDTH: Final = 78

_TEMPLATES: Final = {
    NoticeType.INGESTION_SCHEDULED: "scheduled",
    NoticeType.INGESTION_PICKED_UP: "picked_up",
    NoticeType.INGESTION_DELAYED: "delayed",
    NoticeType.INGESTION_COMPLETED: "completed",
    NoticeType.INGESTION_FAILED: "failed",
    NoticeType.INGESTION_HELD: "held",
    NoticeType.RUN_FAILED: "run_failed",
    NoticeType.CONNECTION_HOST_KEY_CHANGED: "host_key_changed",
    NoticeType.WEBHOOK_DISABLED: "webhook_disabled",
    NoticeType.RECIPIENT_INVITED: "invited",
}


@dataclass(frozen=True, slots=True)
class Attachment:
    """A CSV file beside a letter."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class House:
    """What all letters share: who sends them, where the API is, and how long error files and held ones are kept."""

    sender: str
    public_url: str
    error_file_days: int
    held_days: int

    @property
    def domain(self) -> str:
        """The domain of the sender's address, which names our messages."""
        return parseaddr(self.sender)[1].rpartition("@")[2] or "localhost"


def letter(
    house: House,
    claimed: Claimed,
    *,
    attachment: Attachment | None = None,
    personal: bool = False,
    code: str = "",
    owner: str = "",
) -> EmailMessage:
    """The mail of a message; the same in every attempt.

    `personal` says that an error file is not attached since it may hold personal data; `code` is what an invitation
    asks for; `owner` is the name of what a run was to keep fresh.
    """
    told, zone = claimed.data, ZoneInfo(claimed.time_zone)

    def moment(text: str) -> str:
        return f"{datetime.fromisoformat(text).astimezone(zone):%d %b %Y %H:%M:%S} ({zone})"

    shared: dict[str, Any] = {
        "account": claimed.account_name,
        "when": moment(claimed.created_at.isoformat()),
        "facts": _facts(told),
    }
    written = _ENVIRONMENT.get_template(f"{_TEMPLATES[NoticeType(claimed.type)]}.txt").render(
        shared,
        told=told,
        file=_subject_of(told),
        attachment=attachment,
        link=f"{house.public_url}/v1/ingestions/{told.get('id')}",
        public_url=house.public_url,
        days=house.error_file_days,
        held_days=house.held_days,
        personal=personal,
        code=code,
        owner=owner,
        moment=moment,
    )
    first, *rest = re.split(r"\n\s*\n", written.strip())
    shared |= {"subject": _line(first), "paragraphs": [_line(each) for each in rest if each.strip()]}
    mail = _addressed(house, claimed, shared["subject"])
    mail.set_content(_ENVIRONMENT.get_template("letter.txt").render(shared), cte="quoted-printable")
    mail.add_alternative(
        _ENVIRONMENT.get_template("letter.html").render(shared), subtype="html", cte="quoted-printable"
    )
    if attachment is not None:
        mail.add_attachment(attachment.content, maintype="text", subtype="csv", filename=attachment.name)
    return mail


def problems_file(name: str, problems: Sequence[Mapping[str, str]]) -> Attachment:
    """All problems of a manifest, as the CSV file that its mail carries (S122)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["Where", "Code", "Failure Description"])
    for each in problems:
        writer.writerow([guarded(each[key]) for key in ("pointer", "code", "detail")])
    return Attachment(f"{name}.errors.csv", text.getvalue().encode())


def manifest_name(told: Mapping[str, Any]) -> str:
    """The name of a manifest, also where that had been used before; blank where there is none."""
    name: str | None = (told.get("manifest") or {}).get("name") or told.get("manifest_name")
    return name or ""


def _addressed(house: House, claimed: Claimed, subject: str) -> EmailMessage:
    name, address = parseaddr(house.sender)
    mail = EmailMessage(policy=SMTP)
    mail["From"] = Address(display_name=name, addr_spec=address)
    mail["To"] = Address(addr_spec=ascii_address(claimed.address))
    mail["Subject"] = subject.replace("=?", "= ?")  # else the library decodes what looks encoded: a line break, say
    mail["Date"] = format_datetime(claimed.created_at)
    mail["Message-ID"] = f"<{ids.show(Prefix.MESSAGE, claimed.id)}@{house.domain}>"
    if thread := claimed.data.get("id"):
        mail["References"] = f"<{thread}@{house.domain}>"  # what is told of one file stands together in a mail program
    mail["Auto-Submitted"] = "auto-generated"
    return mail


def _subject_of(told: Mapping[str, Any]) -> str:
    """The name of the file that it is about, or of the manifest where there is none."""
    file = told.get("file")
    return file["name"] if file else manifest_name(told) or "The manifest"


def _facts(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The table at a letter's end."""
    file = told.get("file")
    names = (("File", file and file["name"]), ("Manifest", manifest_name(told)))
    facts = [(label, name) for label, name in names if name]
    facts += [("Request ID" if told["id"].startswith(Prefix.INGESTION) else "ID", told["id"])]
    if (counts := told.get("counts")) and counts["read"]:
        facts.append(("Rows", ", ".join(f"{counts[key]} {key}" for key in ("read", "accepted", "rejected", "blank"))))
    if told.get("status"):
        facts.append(("Status", told["status"]))
    return facts


def _line(text: str) -> str:
    """A text as one line without control characters."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable())


def _fill(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _links(text: str) -> Markup:
    """A paragraph of HTML, in which addresses of the API can be followed."""
    return Markup(re.sub(r"(https?://[^\s&<>\"']+)", r'<a href="\1">\1</a>', str(escape(text))))  # noqa: S704 -- escaped


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("ingestd.notify"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"fill": _fill, "links": _links}
    return made


_ENVIRONMENT: Final = _environment()
