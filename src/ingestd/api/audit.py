"""The audit trail: `note` writes it, `GET /v1/audit` shows it (T116)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api.context import Caller, Principal, Reading, Scope, needs
from ingestd.api.model import Out
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.domain.submission import Actor
from ingestd.store import audit
from ingestd.store.audit import AuditEntry
from ingestd.store.engine import new_id, utc_now

MASK: Final = "***"
_HIDDEN: Final = re.compile("secret|password|passphrase|token|private_key|^key$|^e?mail$|^address$|phone")
"""Fields whose values are no one's business in an audit trail: secrets and personal data."""

Shown = TypeVar("Shown", bound=Out)

router = Router(prefix="/v1/audit", tags=["Audit"])


class ActorOut(BaseModel):
    """Who did it."""

    type: str
    id: str | None
    name: str | None


class AuditEntryOut(BaseModel):
    """One change: `before` and `after` hold the fields that differ, null where the target was not there."""

    id: str
    actor: ActorOut
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    created_at: Moment


class AuditPage(Page[AuditEntryOut]):
    """Changes, the last first."""


def note(
    tx: AsyncSession,
    caller: Principal,
    action: str,
    target: str,
    *,
    before: BaseModel | None = None,
    after: BaseModel | None = None,
) -> None:
    """Write into the trail, in the transaction of the change, that the caller changed `target` (a typed id).

    `action` is the kind of thing and a verb in the past: `api_key.created`. `before` and `after` are the target as the
    API shows it; only what differs is kept, and what looks like a secret or an address is masked.
    """
    tx.add(
        entry(caller.account_id, caller.actor, action, target, before=before, after=after, request_id=caller.request_id)
    )


def entry(  # noqa: PLR0913 -- who, what, to what
    account_id: UUID,
    actor: Actor,
    action: str,
    target: str,
    *,
    before: BaseModel | None = None,
    after: BaseModel | None = None,
    request_id: str | None = None,
) -> AuditEntry:
    """The entry that `note` writes, for what is changed by a command."""
    old, new = _fields(before), _fields(after)
    if old is not None and new is not None:
        changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        old = {name: value for name, value in old.items() if name in changed}
        new = {name: value for name, value in new.items() if name in changed}
    return AuditEntry(
        id=new_id(),
        account_id=account_id,
        actor=actor.shown(),
        action=action,
        target=target,
        before=_masked(old),
        after=_masked(new),
        request_id=request_id,
        created_at=utc_now(),
    )


def changed(tx: AsyncSession, caller: Principal, action: str, before: Shown, after: Shown) -> Shown:
    """Write that the caller changed a resource, and give it as it is now: what PATCH and PUT answer."""
    note(tx, caller, action, after.id, before=before, after=after)
    return after


@router.get("", operation_id="audit_list", summary="List who changed what", dependencies=[needs(Scope.AUDIT_READ)])
async def list_all(
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(audit.SORTS, "-created_at"))],
    action: Annotated[str | None, Query(description="Only this action, such as `api_key.created`.")] = None,
    target: Annotated[str | None, Query(description="Only changes of the thing with this id.")] = None,
    actor: Annotated[str | None, Query(description="Only what the key with this id did.")] = None,
) -> AuditPage:
    """The changes of the account: who, what, when, and what was there before and after."""
    rows = await audit.page(tx, caller.account_id, asked.cut, action=action, target=target, actor=actor)
    return asked.page(AuditPage, rows, _shown)


def _shown(entry: AuditEntry) -> AuditEntryOut:
    return AuditEntryOut(
        id=ids.show(Prefix.AUDIT_ENTRY, entry.id),
        actor=ActorOut.model_validate(entry.actor),
        action=entry.action,
        target=entry.target,
        before=entry.before,
        after=entry.after,
        request_id=entry.request_id,
        created_at=entry.created_at,
    )


def _fields(shown: BaseModel | None) -> dict[str, Any] | None:
    return None if shown is None else shown.model_dump(mode="json")


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: MASK if item is not None and _HIDDEN.search(name) else _masked(item) for name, item in value.items()
        }
    return [_masked(item) for item in value] if isinstance(value, list) else value
