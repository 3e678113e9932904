"""The audit trail: who changed what, written in the transaction of the change, and never edited (T116)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ForeignKey, Index, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.store.base import Base, Key
from ingestd.store.page import Cut, Sorts

APPEND_ONLY: Final = (
    """
    CREATE FUNCTION audit_refuses() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the audit trail is append-only' USING ERRCODE = 'insufficient_privilege';
    END $$
    """,
    "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit EXECUTE FUNCTION audit_refuses()",
)
"""Refuses every change but an addition, to whatever role: a privilege would bind neither owner nor superuser."""


class AuditEntry(Base):
    """One change: `actor` as the API shows it, `target` a typed id; `before` and `after` hold what differs."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_account_id_id", "account_id", "id"),
        Index("ix_audit_account_id_target", "account_id", "target", "id"),
        Index("ix_audit_account_id_action_id", "account_id", "action", "id"),
        Index("ix_audit_actor", "account_id", text("(actor ->> 'id')"), "id"),
    )

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    actor: Mapped[dict[str, Any]]
    action: Mapped[str]
    target: Mapped[str]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]
    request_id: Mapped[str | None]
    created_at: Mapped[datetime]


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
