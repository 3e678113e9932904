"""The audit trail: `note` writes it, `GET /v1/audit` shows it (T116)."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

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
from ingestd.store import audit
from ingestd.store.audit import AuditEntry

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
    API shows it.
    """
    old, new = (None if each is None else each.model_dump(mode="json") for each in (before, after))
    who = caller.account_id, caller.actor
    tx.add(audit.entry(*who, action, target, before=old, after=new, request_id=caller.request_id))


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
