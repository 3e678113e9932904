"""Recipients: to whom an account's mail may go, and at which milestones (S129 to S133, D39)."""

from __future__ import annotations

from enum import StrEnum

from email_validator import EmailNotValidError, validate_email


class Milestone(StrEnum):
    """A moment in the life of an ingestion that a recipient can be told of."""

    PICKED_UP = "picked_up"
    DELAYED = "delayed"
    COMPLETED = "completed"
    FAILED = "failed"


def normal_address(text: str) -> str | None:
    """One e-mail address in the form in which it is kept and compared, or None."""
    try:
        valid = validate_email(text, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError:
        return None
    return valid.normalized.casefold()
