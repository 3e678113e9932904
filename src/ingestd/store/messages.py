"""Messages: a notice on its way to one person by e-mail. A dispatcher claims it, sends it and marks it (P5)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Connection,
    Executable,
    ForeignKey,
    Index,
    Row,
    Select,
    UniqueConstraint,
    Uuid,
    bindparam,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.types import Text

from ingestd.domain.errors import NotFound
from ingestd.domain.notice import MILESTONES, NoticeType
from ingestd.domain.recipient import SILENCED
from ingestd.store import expiry, outgoing
from ingestd.store.base import Base
from ingestd.store.notices import Notice
from ingestd.store.outgoing import LEASE, DeliveryState, Lease, Outgoing
from ingestd.store.page import Cut, Sorts

CHANNEL: Final = "ingestd_messages"
"""The channel of LISTEN and NOTIFY that wakes the dispatchers of mail."""

PER_ACCOUNT: Final = 4
"""Messages on their way for one account at a time, over all replicas: one account's do not hold up another's."""


class Message(Outgoing, Base):
    """One notice for one address; `attempts` are `{at, code, status, answer, ms}`.

    `blob` is the mail itself where there is no mail server to take it.
    """

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("notice_id", "address"),
        CheckConstraint("(state IN ('pending', 'sending')) = (next_attempt_at IS NOT NULL)", name="open"),
        Index("ix_messages_account_id_notice_id_id", "account_id", "notice_id", "id"),
        Index("ix_messages_due", "account_id", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
        Index("ix_messages_sending", "account_id", postgresql_where=text("state = 'sending'")),
        Index("ix_messages_blob", "created_at", postgresql_where=text("blob IS NOT NULL")),
    )

    queue: ClassVar = "account_id"
    channel: ClassVar = CHANNEL

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    notice_id: Mapped[UUID] = mapped_column(ForeignKey("notices.id", ondelete="CASCADE"))
    address: Mapped[str]
    blob: Mapped[str | None]


SORTS: Final[Sorts] = {"created_at": (Message.notice_id, Message.id)}

Shown = Row[Message, Notice]
"""A message and what it tells."""

_ADD = text("""
    WITH told AS (
        SELECT unnest(CAST(:addresses AS text[])) AS address
        UNION
        SELECT address FROM recipients WHERE :all AND account_id = :account_id
    ), message AS (
        INSERT INTO messages (account_id, notice_id, address, state, failures, attempts, next_attempt_at, created_at)
        SELECT a.id, :notice_id, told.address, 'pending', 0, '[]', :now, :now
        FROM accounts a
        CROSS JOIN told
        LEFT JOIN recipients r ON r.account_id = a.id AND r.address = told.address
        WHERE a.id = :account_id
          AND CASE WHEN r.id IS NULL THEN a.email_domains ? regexp_replace(told.address, '^.*@', '')
                   ELSE r.confirmed_at IS NOT NULL AND r.milestones ? :milestone END
          AND NOT (:silenced AND a.features @> '{"milestone_emails": false}')
        ON CONFLICT DO NOTHING
        RETURNING id
    )
    SELECT pg_notify(:channel, '') FROM message
""").bindparams(
    bindparam("account_id", type_=Uuid()),
    bindparam("notice_id", type_=Uuid()),
    bindparam("addresses", type_=ARRAY(Text())),
    bindparam("channel", CHANNEL),
)


def adding(notice: Notice, *, to: Collection[str] | None) -> Executable:
    """The statement that writes a notice's messages in the caller's transaction; for either kind of connection.

    `to` are addresses in their normal form, or None for all recipients of the account. Of those who are recipients only
    the ones get a message whose address is confirmed and who want this milestone, of others those of a domain that the
    account allows: somebody may be no recipient any more (D39). A notice that is no milestone makes none.
    """
    milestone = MILESTONES.get(NoticeType(notice.type))
    return _ADD.bindparams(
        account_id=notice.account_id,
        notice_id=notice.id,
        addresses=list(to or ()) if milestone else [],
        all=to is None and milestone is not None,
        milestone=milestone or "",
        silenced=milestone in SILENCED,
        now=notice.created_at,
    )


async def invite(session: AsyncSession, notice: Notice, address: str) -> None:
    """Write the message by which somebody is asked to confirm their address."""
    session.add(
        Message(
            account_id=notice.account_id,
            notice_id=notice.id,
            address=address,
            state=DeliveryState.PENDING,
            failures=0,
            attempts=[],
            next_attempt_at=notice.created_at,
            created_at=notice.created_at,
        )
    )
    await session.flush()
    await session.execute(select(func.pg_notify(CHANNEL, "")))


@dataclass(frozen=True, slots=True)
class Claimed(Lease):
    """A message that is this dispatcher's until `lease`, with what writing the mail needs."""

    address: str
    type: str
    subject_id: UUID | None
    data: dict[str, Any]
    created_at: datetime
    account_name: str
    time_zone: str


# As in `deliveries`: each account offers its oldest due messages, as many as it may have on their way; then they take
# turns.
_CLAIM = text("""
    WITH sending AS MATERIALIZED (
        SELECT account_id FROM messages WHERE state = 'sending' AND next_attempt_at > :now
    ), due AS (
        SELECT m.id, m.next_attempt_at, row_number() OVER (PARTITION BY a.id ORDER BY m.next_attempt_at) AS turn
        FROM accounts a
        CROSS JOIN LATERAL (
            SELECT id, next_attempt_at FROM messages
            WHERE account_id = a.id AND next_attempt_at <= :now
            ORDER BY next_attempt_at
            LIMIT greatest(0, :per_account - (SELECT count(*) FROM sending s WHERE s.account_id = a.id))
            FOR UPDATE SKIP LOCKED
        ) m
    ), chosen AS (
        SELECT id FROM due ORDER BY turn, next_attempt_at LIMIT :room
    )
    UPDATE messages m
    SET state = 'sending', next_attempt_at = :lease
    FROM chosen, notices n, accounts a
    WHERE m.id = chosen.id AND n.id = m.notice_id AND a.id = m.account_id
    RETURNING m.id, m.next_attempt_at AS lease, m.failures, m.account_id, m.notice_id, m.address, n.type, n.subject_id,
              a.data_keys, a.index_key, n.data, n.created_at, a.name AS account_name, a.time_zone
""").bindparams(per_account=PER_ACCOUNT)


async def claim(session: AsyncSession, *, room: int, now: datetime) -> list[Claimed]:
    """At most `room` due messages, which no other dispatcher gets before the lease ends.

    Of a transaction that has its turn: so the limit of an account holds for all replicas together.
    """
    rows = await session.execute(_CLAIM, {"now": now, "lease": now + LEASE, "room": room})
    return [Claimed(**row) for row in rows.mappings()]


async def keep(session: AsyncSession, message_id: UUID, blob: str) -> None:
    """Note where the mail itself is kept."""
    await session.execute(update(Message).where(Message.id == message_id).values(blob=blob))


async def get(session: AsyncSession, account_id: UUID, message_id: UUID) -> Shown:
    """The message and its notice, or NotFound."""
    found = await session.execute(_shown(account_id).where(Message.id == message_id))
    row = found.one_or_none()
    if row is None:
        raise NotFound("There is no such message.")
    return row


async def page(
    session: AsyncSession,
    account_id: UUID,
    cut: Cut,
    *,
    state: DeliveryState | None = None,
    subject_id: UUID | None = None,
) -> Sequence[Shown]:
    """Messages of the account, in the order of what they tell: those in a state, those about an ingestion."""
    statement = _shown(account_id)
    if state is not None:
        statement = statement.where(Message.state == state)
    if subject_id is not None:
        statement = statement.where(Notice.subject_id == subject_id)
    found = await session.execute(cut.of(statement))
    return found.all()


def _shown(account_id: UUID) -> Select[Message, Notice]:
    joined = select(Message, Notice).join(Notice, Notice.id == Message.notice_id)
    return joined.where(Message.account_id == account_id)


async def resend(session: AsyncSession, account_id: UUID, message_id: UUID, *, now: datetime) -> None:
    """Begin a new series of attempts now, whatever came of the last."""
    which = (Message.account_id == account_id, Message.id == message_id)
    if not await outgoing.restart(session, Message, *which, now=now):
        await get(session, account_id, message_id)  # it is on its way at this moment, or there is none


def all_of(session: Session, account_id: UUID, *, at_most: int) -> Sequence[Shown]:
    """The newest messages of an account, for a command."""
    newest = _shown(account_id).order_by(Message.notice_id.desc(), Message.id.desc()).limit(at_most)
    return session.execute(newest).all()


_EXPIRE: Final = expiry.of_blobs("messages", "created_at < :before")


def expire(connection: Connection, before: datetime, *, at_most: int) -> list[str]:
    """Forget the mails that were kept before a time: they hold error files."""
    return list(connection.scalars(_EXPIRE, {"before": before, "at_most": at_most}))
