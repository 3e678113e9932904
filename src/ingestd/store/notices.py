"""Notices, the outbox: what the world must be told is a row in the transaction of the fact (P4)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Connection, Executable, ForeignKey, Index, Uuid, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.domain.notice import NoticeType
from ingestd.store.base import Base, Key
from ingestd.store.engine import new_id

CHANNEL: Final = "ingestd_deliveries"
"""The channel of LISTEN and NOTIFY that wakes the dispatchers of webhooks."""


class Notice(Base):
    """Something that happened; `data` is that part of a webhook's body, without personal data (P9)."""

    __tablename__ = "notices"
    __table_args__ = (Index("ix_notices_account_id_id", "account_id", "id"),)

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    type: Mapped[str]
    subject_id: Mapped[UUID | None] = mapped_column(index=True)  # whatever `data` shows
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


def new(
    account_id: UUID, what: NoticeType, data: dict[str, Any], *, subject_id: UUID | None = None, now: datetime
) -> Notice:
    """A notice that is yet to be written: see `adding`."""
    return Notice(id=new_id(), account_id=account_id, type=what, subject_id=subject_id, data=data, created_at=now)


async def after(
    session: AsyncSession, account_id: UUID, last: UUID, *, types: Collection[str] | None, at_most: int
) -> Sequence[Notice]:
    """The account's notices whose ids come after one, oldest first; ids are made in the order of time."""
    wanted = select(Notice).where(Notice.account_id == account_id, Notice.id > last)
    if types:
        wanted = wanted.where(Notice.type.in_(types))
    return (await session.scalars(wanted.order_by(Notice.id).limit(at_most))).all()


_ADD = text("""
    WITH notice AS (
        INSERT INTO notices (id, account_id, type, subject_id, data, created_at)
        VALUES (:id, :account_id, :type, :subject_id, :data, :created_at)
        RETURNING *
    ), wanting AS MATERIALIZED (
        SELECT id FROM webhooks
        WHERE account_id = :account_id AND enabled
          AND CASE WHEN CAST(:only AS uuid[]) IS NULL
                   THEN events IS NULL OR :type = ANY (events) OR id = ANY (:chosen)
                   ELSE id = ANY (:only) END
        FOR KEY SHARE
    ), delivery AS (
        INSERT INTO deliveries
            (account_id, webhook_id, notice_id, state, failures, attempts, next_attempt_at, created_at)
        SELECT n.account_id, w.id, n.id, 'pending', 0, '[]', n.created_at, n.created_at
        FROM notice n CROSS JOIN wanting w
        RETURNING id
    )
    SELECT pg_notify(:channel, '') FROM delivery
""").bindparams(
    bindparam("id", type_=Uuid()),
    bindparam("account_id", type_=Uuid()),
    bindparam("subject_id", type_=Uuid()),
    bindparam("data", type_=JSONB()),
    bindparam("chosen", type_=ARRAY(Uuid())),
    bindparam("only", type_=ARRAY(Uuid())),
    bindparam("channel", CHANNEL),
)


def adding(notice: Notice, *, chosen: Collection[UUID] = (), only: Collection[UUID] | None = None) -> Executable:
    """The statement that writes a notice and its deliveries in the caller's transaction; for either kind of connection.

    Told are the account's enabled webhooks that want the type, and the `chosen` ones whatever they want (S136); or
    `only` some. One that is being deleted is waited for, and then left out. Their dispatchers wake at the commit.
    """
    return _ADD.bindparams(
        id=notice.id,
        account_id=notice.account_id,
        type=notice.type,
        subject_id=notice.subject_id,
        data=notice.data,
        created_at=notice.created_at,
        chosen=list(chosen),
        only=None if only is None else list(only),
    )


_EXPIRE: Final = text("""
    DELETE FROM notices WHERE id = ANY (ARRAY(
        SELECT id FROM notices n
        WHERE id < :before
          AND NOT EXISTS (SELECT FROM deliveries WHERE notice_id = n.id AND next_attempt_at IS NOT NULL)
          AND NOT EXISTS (SELECT FROM messages WHERE notice_id = n.id AND next_attempt_at IS NOT NULL)
        ORDER BY id LIMIT :at_most
    ))
""")


def expire(connection: Connection, before: UUID, *, at_most: int) -> int:
    """Forget notices made before an id, with the deliveries and messages that told them; none that is yet to be told.

    Their number.
    """
    return connection.execute(_EXPIRE, {"before": before, "at_most": at_most}).rowcount
