"""Recipients: the people of an account who may be sent e-mail, and at which milestones (S129 to S133, D39)."""

from __future__ import annotations

import hmac
from typing import Annotated, Final

from fastapi import Depends, Response
from pydantic import Field, with_config
from typing_extensions import TypedDict

from ingestd.api import audit
from ingestd.api.context import NO_STORE, Caller, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import RecipientId
from ingestd.api.model import STRICT, Address, In, Name, Out
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import Conflict, Invalid, Problem
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.domain.notice import NoticeType
from ingestd.domain.recipient import Milestone, confirmation_code, normal_address
from ingestd.store import accounts, messages, notices, recipients, schedules
from ingestd.store.engine import new_id, utc_now
from ingestd.store.recipients import Recipient

router = Router(prefix="/v1/recipients", tags=["Recipients"], dependencies=[NO_STORE])

_ALL: Final = list(Milestone)

Milestones = Annotated[list[Milestone], Field(max_length=len(Milestone))]


class RecipientIn(In):
    """A new recipient; told of every milestone unless it says otherwise."""

    address: Address
    name: Name
    milestones: Milestones = _ALL


@with_config(STRICT)
class RecipientPatch(TypedDict, total=False):
    """A change of a recipient; another address is another recipient."""

    name: Name
    milestones: Milestones


class RecipientConfirmIn(In):
    """The code that was mailed to a recipient."""

    code: Annotated[str, Field(min_length=1, max_length=40)]


class RecipientOut(Out):
    """Somebody who may be sent e-mail: a manifest may name the address in `clientEmail`.

    `confirmed_at` is null while an account that wants recipients to confirm their address waits for that.
    """

    address: str
    name: str
    milestones: list[Milestone]
    confirmed_at: Moment | None
    created_at: Moment


class RecipientPage(Page[RecipientOut]):
    """Recipients."""


def _shown(recipient: Recipient) -> RecipientOut:
    return RecipientOut(
        id=ids.show(Prefix.RECIPIENT, recipient.id),
        address=recipient.address,
        name=recipient.name,
        milestones=recipient.milestones,
        confirmed_at=recipient.confirmed_at,
        created_at=recipient.created_at,
    )


def _in_order(milestones: list[Milestone]) -> list[Milestone]:
    return [milestone for milestone in Milestone if milestone in milestones]


@router.post(
    "",
    status_code=201,
    operation_id="recipients_create",
    summary="Register a recipient",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
)
async def create(body: RecipientIn, tx: Tx, caller: Caller, response: Response) -> RecipientOut:
    """Let e-mail go to an address: error files hold personal data, so they go to nobody else (D39).

    Where the account has `confirm_recipients`, a code is mailed there first, and nothing else until it is confirmed.
    """
    address = normal_address(body.address)
    if address is None:
        problem = Problem("/body/address", "address", "Must be one e-mail address.")
        raise Invalid("This is no e-mail address.", problems=(problem,))
    account, now = await accounts.lock(tx, caller.account_id), utc_now()
    if await recipients.find(tx, caller.account_id, address):
        raise Conflict("The address is registered already.", code="recipient_exists")
    recipient = Recipient(
        id=new_id(),
        account_id=caller.account_id,
        address=address,
        name=body.name,
        milestones=_in_order(body.milestones),
        confirmed_at=None if account.confirm_recipients else now,
        created_at=now,
    )
    tx.add(recipient)
    if recipient.confirmed_at is None:
        await _invite(tx, recipient)
    shown = _shown(recipient)
    audit.note(tx, caller, "recipient.created", shown.id, after=shown)
    response.headers["Location"] = f"{router.prefix}/{shown.id}"
    return shown


@router.get("", operation_id="recipients_list", summary="List recipients", dependencies=[needs(Scope.ACCOUNT_READ)])
async def list_all(
    tx: Reading, caller: Caller, asked: Annotated[Asked, Depends(listing(recipients.SORTS, "created_at"))]
) -> RecipientPage:
    """The account's recipients, oldest first."""
    return asked.page(RecipientPage, await recipients.page(tx, caller.account_id, asked.cut), _shown)


@router.get(
    "/{recipient_id}",
    operation_id="recipients_get",
    summary="Show a recipient",
    dependencies=[needs(Scope.ACCOUNT_READ)],
)
async def get_one(recipient_id: RecipientId, tx: Reading, caller: Caller) -> RecipientOut:
    """One recipient."""
    return _shown(await recipients.get(tx, caller.account_id, recipient_id))


@router.patch(
    "/{recipient_id}",
    operation_id="recipients_change",
    summary="Change a recipient",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
)
async def change(
    recipient_id: RecipientId, body: RecipientPatch, tx: Tx, caller: Caller, match: IfMatch
) -> RecipientOut:
    """Rename a recipient, or choose of which milestones they are told."""
    recipient = await recipients.get(tx, caller.account_id, recipient_id, lock=True)
    before = _shown(recipient)
    match.check(before)
    recipient.name = body.get("name", recipient.name)
    recipient.milestones = _in_order(body.get("milestones", recipient.milestones))
    return audit.changed(tx, caller, "recipient.changed", before, _shown(recipient))


@router.post(
    "/{recipient_id}/confirm",
    operation_id="recipients_confirm",
    summary="Confirm a recipient",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
)
async def confirm(
    recipient_id: RecipientId, body: RecipientConfirmIn, tx: Tx, service: Service, caller: Caller
) -> RecipientOut:
    """Confirm an address with the code that was mailed to it."""
    keys = await service.intake.keys(caller.account_id, tx)
    recipient = await recipients.get(tx, caller.account_id, recipient_id, lock=True)
    code = confirmation_code(keys.mac("recipients", recipient_id.bytes))
    if not hmac.compare_digest(code.encode(), body.code.strip().lower().encode()):
        problem = Problem("/body/code", "code", "Must be the code of the mail that asked for confirmation.")
        raise Invalid("This is not the code.", problems=(problem,))
    before = _shown(recipient)
    recipient.confirmed_at = recipient.confirmed_at or utc_now()
    return audit.changed(tx, caller, "recipient.confirmed", before, _shown(recipient))


async def _invite(tx: Tx, recipient: Recipient) -> None:
    data, what = {"id": ids.show(Prefix.RECIPIENT, recipient.id)}, NoticeType.RECIPIENT_INVITED
    notice = notices.new(recipient.account_id, what, data, subject_id=recipient.id, now=utc_now())
    await tx.execute(notices.adding(notice))
    await messages.invite(tx, notice, recipient.address)


@router.delete(
    "/{recipient_id}",
    status_code=204,
    operation_id="recipients_delete",
    summary="Delete a recipient",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
)
async def delete(recipient_id: RecipientId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Let no more e-mail go to an address, unless its domain is one the account allows."""
    await accounts.lock(tx, caller.account_id)
    recipient = await recipients.get(tx, caller.account_id, recipient_id, lock=True)
    before = _shown(recipient)
    match.check(before)
    await schedules.forget_recipient(tx, caller.account_id, recipient.id)
    await tx.delete(recipient)
    audit.note(tx, caller, "recipient.deleted", before.id, before=before)
