"""Messages: the e-mails of an account, what the mail server answered, and sending one again (S129 to S134)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from pydantic import BaseModel

from ingestd.api import audit
from ingestd.api.context import NO_STORE, Caller, Reading, Scope, Tx, needs
from ingestd.api.ids import IngestionId, MessageId
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.domain.notice import NoticeType
from ingestd.notify.smtp import MailCode
from ingestd.store import messages
from ingestd.store.engine import utc_now
from ingestd.store.messages import Shown
from ingestd.store.outgoing import DeliveryState

router = Router(prefix="/v1/messages", tags=["Recipients"], dependencies=[NO_STORE])


class MailAttemptOut(BaseModel):
    """One attempt: what came of it, the mail server's code and words if there were any, and how long it took."""

    at: Moment
    code: MailCode
    status: int | None
    answer: str | None
    ms: int


class MessageOut(BaseModel):
    """A mail to one person; `about` is the id of what it tells of, often an ingestion."""

    id: str
    type: NoticeType
    to: str
    about: str | None
    state: DeliveryState
    failures: int
    attempts: list[MailAttemptOut]
    next_attempt_at: Moment | None
    created_at: Moment


class MessagePage(Page[MessageOut]):
    """Mails, the newest first."""


def _shown(row: Shown) -> MessageOut:
    message, notice = row
    return MessageOut(
        id=ids.show(Prefix.MESSAGE, message.id),
        type=NoticeType(notice.type),
        to=message.address,
        about=notice.data.get("id"),
        state=DeliveryState(message.state),
        failures=message.failures,
        attempts=[MailAttemptOut.model_validate(each) for each in message.attempts],
        next_attempt_at=message.next_attempt_at,
        created_at=notice.created_at,
    )


@router.get("", operation_id="messages_list", summary="List e-mails", dependencies=[needs(Scope.ACCOUNT_READ)])
async def list_all(
    *,
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(messages.SORTS, "-created_at"))],
    state: Annotated[DeliveryState | None, Query(description="Only those in this state.")] = None,
    ingestion: Annotated[IngestionId | None, Query(description="Only those about this ingestion.")] = None,
) -> MessagePage:
    """What was, or will be, mailed, and what became of it."""
    rows = await messages.page(tx, caller.account_id, asked.cut, state=state, subject_id=ingestion)
    return asked.page(MessagePage, rows, _shown, keyed=lambda row: row[0])


@router.get(
    "/{message_id}", operation_id="messages_get", summary="Show an e-mail", dependencies=[needs(Scope.ACCOUNT_READ)]
)
async def get_one(message_id: MessageId, tx: Reading, caller: Caller) -> MessageOut:
    """One mail with its newest attempts."""
    return _shown(await messages.get(tx, caller.account_id, message_id))


@router.post(
    "/{message_id}/resend",
    status_code=202,
    operation_id="messages_resend",
    summary="Send an e-mail again",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
)
async def resend(message_id: MessageId, tx: Tx, caller: Caller) -> MessageOut:
    """Begin a new series of attempts now, whatever came of the last; the mail keeps its `Message-ID`."""
    await messages.resend(tx, caller.account_id, message_id, now=utc_now())
    audit.note(tx, caller, "message.resent", ids.show(Prefix.MESSAGE, message_id))
    return _shown(await messages.get(tx, caller.account_id, message_id))
