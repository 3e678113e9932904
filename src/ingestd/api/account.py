"""Accounts: made by an operator, read by their own keys."""

from __future__ import annotations

from datetime import datetime, time
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ingestd.api.context import Caller, Reading, Scope, Service, Tx, needs
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.ingest.accounts import new_account
from ingestd.store import accounts
from ingestd.store.accounts import Account
from ingestd.store.engine import utc_now

router = Router(prefix="/v1", tags=["Accounts"])


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("is not a time zone of the IANA database, such as Europe/Vienna")
    return name


class Features(BaseModel):
    """What an account may use: the SFTP door (S79), e-mails at milestones (S133)."""

    model_config = ConfigDict(extra="forbid")

    sftp: bool = True
    milestone_emails: bool = True


class AccountIn(BaseModel):
    """A new account."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=120)]
    time_zone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    sync_time: time = time(2, 0)
    features: Features = Features()
    email_domains: Annotated[
        list[Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]], Field(max_length=100)
    ] = []


class AccountOut(BaseModel):
    """An account; `sync_time` is the local time of day at which scheduled runs fire (D7)."""

    id: str
    name: str
    time_zone: str
    sync_time: time
    features: Features
    email_domains: list[str]
    created_at: datetime


def shown(account: Account) -> AccountOut:
    """An account as the API shows it."""
    return AccountOut(
        id=ids.show(Prefix.ACCOUNT, account.id),
        name=account.name,
        time_zone=account.time_zone,
        sync_time=account.sync_time,
        features=Features.model_validate(account.features),
        email_domains=account.email_domains,
        created_at=account.created_at,
    )


@router.post(
    "/accounts",
    status_code=201,
    operation_id="accounts_create",
    summary="Make an account",
    dependencies=[needs(Scope.ADMIN)],
)
async def create(body: AccountIn, tx: Tx, service: Service, _: Caller) -> AccountOut:
    """Make an account with fresh keys of its own; needs the scope `admin`."""
    account = new_account(service.intake.keyring, **body.model_dump(), now=utc_now())
    tx.add(account)
    await tx.flush()
    return shown(account)


@router.get(
    "/account",
    operation_id="account_get",
    summary="Show the account of the key",
    dependencies=[needs(Scope.ACCOUNT_READ)],
)
async def get_own(tx: Reading, caller: Caller) -> AccountOut:
    """The account that the key belongs to."""
    return shown(await accounts.get(tx, caller.account_id))
