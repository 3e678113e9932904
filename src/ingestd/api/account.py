"""Accounts: made and changed by an operator, read by their own keys."""

from __future__ import annotations

from datetime import time
from typing import Annotated, Final
from zoneinfo import available_timezones

from fastapi import Depends, Response
from pydantic import AfterValidator, Field, WithJsonSchema, with_config
from typing_extensions import TypedDict

from ingestd.api import audit
from ingestd.api.context import Caller, Principal, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import AccountId
from ingestd.api.model import STRICT, In, Name, Out
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import Conflict
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.ingest.accounts import new_account
from ingestd.ingest.sealing import rotate
from ingestd.store import accounts, endings, schedules
from ingestd.store.accounts import Account, Rotation
from ingestd.store.engine import utc_now

router = Router(prefix="/v1", tags=["Accounts"])


_NO_ZONES: Final = {"localtime", "Factory"}
"""Files of the database that are no zones: that of the machine, and that of one that nobody has set up."""


def _known_zone(name: str) -> str:
    if name not in available_timezones() - _NO_ZONES:
        raise ValueError("is not a time zone of the IANA database, such as Europe/Vienna")
    return name


def _without_zone(at: time) -> time:
    if at.tzinfo is not None:
        raise ValueError("is a time of day in the account's own time zone and has no other")
    return at


TimeZone = Annotated[str, AfterValidator(_known_zone), Field(examples=["Europe/Vienna"])]
SyncTime = Annotated[
    time,
    AfterValidator(_without_zone),
    WithJsonSchema(
        {"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$", "examples": ["02:00:00"]},
    ),
]
Domain = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", examples=["example.org"])]
Domains = Annotated[list[Domain], Field(max_length=100)]
EventName = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^\S(.*\S)?$", examples=["Internal Audit"])]
EventNames = Annotated[list[EventName], Field(max_length=1000)]


class Features(In):
    """What an account may use: the SFTP door (S79), e-mails at milestones (S133)."""

    sftp: bool = True
    milestone_emails: bool = True


class AccountIn(In):
    """A new account."""

    name: Name
    time_zone: TimeZone = "UTC"
    sync_time: SyncTime = time(2, 0)
    features: Features = Features()
    email_domains: Domains = Field([])


@with_config(STRICT)
class FeaturesPatch(TypedDict, total=False):
    """A change of what an account may use."""

    sftp: bool
    milestone_emails: bool


@with_config(STRICT)
class OwnAccountPatch(TypedDict, total=False):
    """What an account changes of itself; its plan and its domains are the operator's to change."""

    name: Name
    time_zone: TimeZone
    sync_time: SyncTime
    confirm_recipients: bool
    restricted_events: EventNames


class AccountPatch(OwnAccountPatch, total=False):
    """What an operator changes of an account."""

    features: FeaturesPatch
    email_domains: Domains


class AccountOut(Out):
    """An account; `sync_time` is the local time of day at which scheduled runs fire (D7).

    `restricted_events` are names that no event of a file may have, beside the service's own list.
    With `confirm_recipients` a new recipient gets a code by mail, and nothing else until it is confirmed.
    `key_rotation` says how far a rotation of its data keys is, null where there is none. It is `failed` as well where
    values of an attribute that was marked as personal could not be sealed: ask for a rotation, which seals them.
    """

    name: str
    time_zone: str
    sync_time: SyncTime
    features: Features
    email_domains: list[str]
    restricted_events: list[str]
    confirm_recipients: bool
    key_rotation: Rotation | None
    created_at: Moment


class AccountPage(Page[AccountOut]):
    """Accounts."""


def shown(account: Account) -> AccountOut:
    """An account as the API shows it."""
    return AccountOut(
        id=ids.show(Prefix.ACCOUNT, account.id),
        name=account.name,
        time_zone=account.time_zone,
        sync_time=account.sync_time,
        features=Features.model_validate(account.features),
        email_domains=account.email_domains,
        restricted_events=account.restricted_events,
        confirm_recipients=account.confirm_recipients,
        key_rotation=None if account.rotation is None else Rotation(account.rotation),
        created_at=account.created_at,
    )


@router.post(
    "/accounts",
    status_code=201,
    operation_id="accounts_create",
    summary="Make an account",
    dependencies=[needs(Scope.ADMIN)],
)
async def create(body: AccountIn, tx: Tx, service: Service, caller: Caller, response: Response) -> AccountOut:
    """Make an account with fresh keys of its own. Name it in `Account-Id` to make its first API key."""
    account = new_account(service.intake.keyring, **body.model_dump(), now=utc_now())
    tx.add(account)
    await tx.flush()
    made = shown(account)
    audit.note(tx, caller, "account.created", made.id, after=made)
    response.headers["Location"] = f"/v1/accounts/{made.id}"
    return made


@router.get("/accounts", operation_id="accounts_list", summary="List accounts", dependencies=[needs(Scope.ADMIN)])
async def list_all(
    tx: Reading, _: Caller, asked: Annotated[Asked, Depends(listing(accounts.SORTS, "created_at"))]
) -> AccountPage:
    """All accounts, oldest first."""
    return asked.page(AccountPage, await accounts.page(tx, asked.cut), shown)


@router.get(
    "/accounts/{account_id}", operation_id="accounts_get", summary="Show an account", dependencies=[needs(Scope.ADMIN)]
)
async def get_one(account_id: AccountId, tx: Reading) -> AccountOut:
    """Any account."""
    return shown(await accounts.get(tx, account_id))


@router.patch(
    "/accounts/{account_id}",
    operation_id="accounts_change",
    summary="Change an account",
    dependencies=[needs(Scope.ADMIN)],
)
async def change(account_id: AccountId, body: AccountPatch, tx: Tx, caller: Caller, match: IfMatch) -> AccountOut:
    """Change any account, what it may use included."""
    account = await accounts.lock(tx, account_id)
    before = shown(account)
    match.check(before)
    account.features = {**account.features, **body.get("features", {})}
    account.email_domains = body.get("email_domains", account.email_domains)
    return await _changed(tx, caller, account, body, before)


@router.delete(
    "/accounts/{account_id}",
    status_code=204,
    operation_id="accounts_delete",
    summary="Delete an account",
    dependencies=[needs(Scope.ADMIN)],
)
async def delete(account_id: AccountId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Delete an account with all it has: it is shut and its keys are destroyed at once, the rest goes within a day.

    409 while an ingestion of it waits or runs, and for the account that the request acts for. What its people and keys
    changed stays in the audit trail for as long as other entries.
    """
    account = await accounts.lock(tx, account_id)
    before = shown(account)
    match.check(before)
    if account_id == caller.account_id:
        raise Conflict("The account that a request acts for cannot be deleted by it.", code="account_in_use")
    await tx.run_sync(endings.shut, account_id, now=utc_now())
    audit.note(tx, caller, "account.deleted", before.id, before=before)


@router.get(
    "/account",
    operation_id="account_get",
    summary="Show the account of the key",
    dependencies=[needs(Scope.ACCOUNT_READ)],
)
async def get_own(tx: Reading, caller: Caller) -> AccountOut:
    """The account that the key belongs to."""
    return shown(await accounts.get(tx, caller.account_id))


@router.patch(
    "/account",
    operation_id="account_change",
    summary="Change the account of the key",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
)
async def change_own(body: OwnAccountPatch, tx: Tx, caller: Caller, match: IfMatch) -> AccountOut:
    """Change name, time zone, sync time and restricted events, and whether recipients confirm their address."""
    account = await accounts.lock(tx, caller.account_id)
    before = shown(account)
    match.check(before)
    return await _changed(tx, caller, account, body, before)


@router.post(
    "/account/rotate-keys",
    status_code=202,
    operation_id="account_rotate_keys",
    summary="Rotate the data keys",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
)
async def rotate_keys(tx: Tx, service: Service, caller: Caller) -> AccountOut:
    """Have new data keys made, in the account's order of ingestions, and all personal values sealed by them (T111).

    The older key of the values is destroyed after that. Files and secrets are sealed by the new keys from then on;
    those that are stored open with the older ones.
    """
    account = await accounts.lock(tx, caller.account_id)
    before = shown(account)
    await rotate(tx, service.intake.jobs, account)
    return audit.changed(tx, caller, "account.keys_rotated", before, shown(account))


async def _changed(
    tx: Tx, caller: Principal, account: Account, body: OwnAccountPatch, before: AccountOut
) -> AccountOut:
    calendar = schedules.calendar_of(account)
    account.name = body.get("name", account.name)
    account.time_zone = body.get("time_zone", account.time_zone)
    account.sync_time = body.get("sync_time", account.sync_time)
    account.restricted_events = body.get("restricted_events", account.restricted_events)
    account.confirm_recipients = body.get("confirm_recipients", account.confirm_recipients)
    if body.keys() & {"time_zone", "sync_time"}:
        await schedules.move_calendar(tx, account, calendar)
    return audit.changed(tx, caller, "account.changed", before, shown(account))
