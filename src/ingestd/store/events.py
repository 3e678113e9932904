"""Events: what people did, append-only, by the month in which the file was received."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import JSON, Connection, Index, Uuid, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.store.base import Base, hidden_from_planner
from ingestd.store.page import Cut, Sorts
from ingestd.store.profiles import merged_into


class Event(Base):
    """One event. `event_id` is made of the ids of ingestion and profile and the row's number; `ts` is in epoch seconds.

    `profile_id` may have been merged into another since: events are read through the redirect. `origin` is the
    ingestion's number in its account.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_account_id_profile_id_ts", "account_id", "profile_id", "ts"),
        Index("ix_events_ts", "ts", postgresql_using="brin"),
        {"postgresql_partition_by": "RANGE (received_at)"},
    )

    account_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    received_at: Mapped[datetime] = mapped_column(primary_key=True)
    event_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    profile_id: Mapped[UUID]
    name: Mapped[str]
    ts: Mapped[int]
    properties: Mapped[dict[str, Any]] = mapped_column(JSON)  # nothing asks for one of them, and JSONB takes longer
    origin: Mapped[int]


PARTITION_DDL: Final = ["CREATE TABLE events_p_default PARTITION OF events DEFAULT"]
"""What the migration and the tests run after the table is made; months are added by `add_months`."""


def add_months(connection: Connection, now: datetime, ahead: int = 3) -> int:
    """Make the partitions of the month of `now` and of some months ahead, those that are missing; gives their number.

    A month is left to the default partition if that holds events of it already.
    """
    made = 0
    month = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(ahead + 1):
        following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
        name, bounds = f"events_p_{month:%Y_%m}", {"first": month, "last": following}
        there = connection.scalar(text("SELECT to_regclass(:name)"), {"name": name})
        late = "SELECT 1 FROM events_p_default WHERE received_at >= :first AND received_at < :last LIMIT 1"
        if there is None and connection.execute(text(late), bounds).first() is None:
            connection.execute(
                text(
                    f"CREATE TABLE {name} PARTITION OF events "
                    f"FOR VALUES FROM ('{month.isoformat()}') TO ('{following.isoformat()}')"
                )
            )
            made += 1
        month = following
    return made


OF_PERSON: Final[Sorts] = {"ts": (Event.ts, Event.event_id)}
OF_ACCOUNT: Final[Sorts] = {"received_at": (Event.received_at, Event.event_id)}


async def of_person(session: AsyncSession, account_id: UUID, profile_id: UUID, cut: Cut) -> Sequence[Event]:
    """Events of a person."""
    ids = [profile_id, *await merged_into(session, account_id, [profile_id])]
    found = await session.scalars(
        cut.of(select(Event).where(Event.account_id == hidden_from_planner(account_id), Event.profile_id.in_(ids)))
    )
    return found.all()


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """When events were received: in a half-open time, at one moment, by one ingestion (`Ingestion.seq`)."""

    since: datetime | None = None
    before: datetime | None = None
    at: datetime | None = None
    origin: int | None = None


async def page(session: AsyncSession, account_id: UUID, cut: Cut, received: Received) -> Sequence[Event]:
    """Events of the account. Only what the key has in it can be asked for: an account may have any number of them."""
    statement = select(Event).where(Event.account_id == hidden_from_planner(account_id))
    if received.since is not None:
        statement = statement.where(Event.received_at >= received.since)
    if received.before is not None:
        statement = statement.where(Event.received_at < received.before)
    if received.at is not None:
        statement = statement.where(Event.received_at == received.at, Event.origin == received.origin)
    found = await session.scalars(cut.of(statement))
    return found.all()
