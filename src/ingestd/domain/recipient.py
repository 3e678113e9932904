"""Recipients: to whom an account's mail may go, and at which milestones (S129 to S133, D39)."""

from __future__ import annotations

import base64
from enum import StrEnum
from typing import Final

from email_validator import EmailNotValidError, validate_email


class Milestone(StrEnum):
    """What a recipient can be told of: moments in the life of a file, and what needs the account's attention."""

    SCHEDULED = "scheduled"
    PICKED_UP = "picked_up"
    DELAYED = "delayed"
    COMPLETED = "completed"
    FAILED = "failed"
    ATTENTION = "attention"


SILENCED: Final = (Milestone.SCHEDULED, Milestone.PICKED_UP, Milestone.DELAYED, Milestone.COMPLETED)
"""What an account without milestone mails is not told of (S133, D58)."""


def confirmation_code(mac: bytes) -> str:
    """The code that is mailed to a recipient, of the account's code for the recipient's id: 60 bits, easily typed."""
    text = base64.b32encode(mac).decode().lower()
    return "-".join(text[start : start + 4] for start in (0, 4, 8))


def normal_address(text: str) -> str | None:
    """One e-mail address in the form in which it is kept and compared, or None."""
    try:
        valid = validate_email(text, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError:
        return None
    return valid.normalized.lower()  # not folded: that makes another domain of one with a ß


def ascii_address(address: str) -> str:
    """An address in its normal form as a mail server takes it: an international domain in its ASCII form."""
    valid = validate_email(address, check_deliverability=False, allow_smtputf8=False)
    return f"{valid.local_part}@{valid.ascii_domain}"
