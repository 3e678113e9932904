"""The audit trail: who changed what, written in the transaction of the change, and never edited (T116)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Index, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped

from ingestd.domain.personal import MASK
from ingestd.domain.submission import Actor
from ingestd.store.base import Base, Key
from ingestd.store.engine import new_id, utc_now
from ingestd.store.page import Cut, Sorts

KEPT_DAYS: Final = 400
"""How long an entry is kept. A trigger refuses every change but an addition and the end of what is older, to whatever
role: a privilege would bind neither owner nor superuser."""

_HIDDEN: Final = re.compile("secret|password|passphrase|token|private_key|^key$|^e?mail$|^address$|phone")
"""Fields whose values are no one's business in an audit trail: secrets and personal data."""


class AuditEntry(Base):
    """One change: `actor` as the API shows it, `target` a typed id; `before` and `after` hold what differs.

    An entry outlives its account.
    """

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_account_id_id", "account_id", "id"),
        Index("ix_audit_account_id_target", "account_id", "target", "id"),
        Index("ix_audit_account_id_action_id", "account_id", "action", "id"),
        Index("ix_audit_actor", "account_id", text("(actor ->> 'id')"), "id"),
    )

    id: Mapped[Key]
    account_id: Mapped[UUID]
    actor: Mapped[dict[str, Any]]
    action: Mapped[str]
    target: Mapped[str]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]
    request_id: Mapped[str | None]
    created_at: Mapped[datetime]


def entry(  # noqa: PLR0913 -- who, what, to what
    account_id: UUID,
    actor: Actor,
    action: str,
    target: str,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    request_id: str | None = None,
) -> AuditEntry:
    """The entry of a change, not yet added to a session.

    `before` and `after` are the target's fields; only what differs is kept, and what looks like a secret or an address
    is masked.
    """
    if before is not None and after is not None:
        differing = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        before = {name: value for name, value in before.items() if name in differing}
        after = {name: value for name, value in after.items() if name in differing}
    return AuditEntry(
        id=new_id(),
        account_id=account_id,
        actor=actor.shown(),
        action=action,
        target=target,
        before=_masked(before),
        after=_masked(after),
        request_id=request_id,
        created_at=utc_now(),
    )


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: MASK if item is not None and _HIDDEN.search(name) else _masked(item) for name, item in value.items()
        }
    return [_masked(item) for item in value] if isinstance(value, list) else value


SORTS: Final[Sorts] = {"created_at": (AuditEntry.id,)}


async def page(
    session: AsyncSession,
    account_id: UUID,
    cut: Cut,
    *,
    action: str | None = None,
    target: str | None = None,
    actor: str | None = None,
) -> list[AuditEntry]:
    """Entries of an account; `actor` is the typed id of who did it."""
    statement = select(AuditEntry).where(AuditEntry.account_id == account_id)
    if action is not None:
        statement = statement.where(AuditEntry.action == action)
    if target is not None:
        statement = statement.where(AuditEntry.target == target)
    if actor is not None:
        statement = statement.where(AuditEntry.actor["id"].astext == actor)
    return list(await session.scalars(cut.of(statement)))


_EXPIRE: Final = text("""
    DELETE FROM audit WHERE created_at < now() - make_interval(days => :days)
    AND id IN (SELECT id FROM audit ORDER BY id LIMIT :at_most)
""")


def expire(connection: Connection, *, at_most: int) -> int:
    """Forget the oldest entries, those that have been kept for `KEPT_DAYS`; their number."""
    return connection.execute(_EXPIRE, {"days": KEPT_DAYS, "at_most": at_most}).rowcount
