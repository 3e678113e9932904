"""What goes out of the house, by webhook or by mail: claimed under a lease, tried, marked, and tried again (P5)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Final, Generic, TypeVar
from uuid import UUID

import psycopg
from sqlalchemy import ColumnElement, bindparam, case, func, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, class_mapper, mapped_column

from ingestd.keyring import SealedKeys
from ingestd.store.base import Key

LEASE: Final = timedelta(minutes=1)
"""How long what is claimed is left to its dispatcher: well above the time an attempt may take."""

ATTEMPTS_KEPT: Final = 50
"""The newest attempts that are kept: a client may ask for new ones without end."""


class DeliveryState(StrEnum):
    """What became of a delivery or a message: waiting for its next attempt, on its way, taken, or given up."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Outgoing:
    """The columns of something that is sent.

    `next_attempt_at` is when a pending one is due, and when a sending one counts as left behind by a dead dispatcher.
    `failures` counts the present series of attempts; `attempts` are those of every series. `queue` names the column
    whose every value has a queue of its own, `channel` the channel of LISTEN and NOTIFY that wakes the dispatchers.
    """

    __tablename__: str
    queue: ClassVar[str]
    channel: ClassVar[str]

    id: Mapped[Key] = mapped_column(server_default=func.gen_random_uuid())
    state: Mapped[str]
    failures: Mapped[int]
    attempts: Mapped[list[Any]]
    next_attempt_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


Out = TypeVar("Out", bound=Outgoing)


@dataclass(frozen=True, slots=True)
class Lease:
    """Something that is this dispatcher's until `lease`, and the sealed keys of its account."""

    id: UUID
    lease: datetime
    failures: int
    account_id: UUID
    notice_id: UUID
    data_keys: bytes = field(repr=False)
    index_key: bytes = field(repr=False)

    @property
    def sealed_keys(self) -> SealedKeys:
        """As the keyring opens them."""
        return SealedKeys(self.data_keys, self.index_key)


L_co = TypeVar("L_co", bound=Lease, covariant=True)


@dataclass(frozen=True, slots=True)
class Ended(Generic[L_co]):
    """What came of an attempt: delivered, due again at a time, or, with neither, dead."""

    claimed: L_co
    attempt: dict[str, Any]
    delivered: bool
    again_at: datetime | None


async def take_turn(session: AsyncSession, model: type[Outgoing]) -> None:
    """Wait until no other replica marks or claims: so limits hold for all together, and no two wait for each other."""
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext(model.__tablename__))))


async def next_due(session: AsyncSession, model: type[Outgoing], *, now: datetime) -> datetime | None:
    """When the next falls due after `now`, which is that of the last `claim`: others wait for one to end.

    Each queue is asked for its first. An index of all times would do that faster, but `claim` would be planned with it.
    """
    queue = class_mapper(model).columns[model.queue]
    [owner] = queue.foreign_keys
    first = select(func.min(model.next_attempt_at)).where(queue == owner.column, model.next_attempt_at > now)
    found: datetime | None = await session.scalar(
        select(func.min(first.scalar_subquery())).select_from(owner.column.table)
    )
    return found


async def mark(session: AsyncSession, model: type[Outgoing], ended: Sequence[Ended[Lease]]) -> None:
    """Write what came of some attempts; nothing of one whose lease is another's by now."""
    has_room = func.jsonb_array_length(model.attempts) < ATTEMPTS_KEPT
    kept = case((has_room, model.attempts), else_=model.attempts.op("-")(0))
    marking = (
        update(model)
        .where(
            model.id == bindparam("claimed"),
            model.state == DeliveryState.SENDING,
            model.next_attempt_at == bindparam("lease"),
        )
        .values(
            state=bindparam("became"),
            next_attempt_at=bindparam("again_at"),
            failures=model.failures + bindparam("failed"),
            attempts=kept.op("||")(bindparam("attempt", type_=JSONB)),
        )
    )
    connection = await session.connection()
    await connection.execute(marking, [_marked(each) for each in ended])


def _marked(ended: Ended[Lease]) -> dict[str, Any]:
    undelivered = DeliveryState.PENDING if ended.again_at else DeliveryState.DEAD
    return {
        "claimed": ended.claimed.id,
        "lease": ended.claimed.lease,
        "became": DeliveryState.DELIVERED if ended.delivered else undelivered,
        "again_at": None if ended.delivered else ended.again_at,
        "failed": int(not ended.delivered),
        "attempt": [ended.attempt],
    }


async def restart(session: AsyncSession, model: type[Out], *which: ColumnElement[bool], now: datetime) -> int:
    """Begin a new series of attempts now for some that are not just being sent, and count them."""
    found = await session.execute(
        update(model)
        .where(model.state != DeliveryState.SENDING, *which)
        .values(state=DeliveryState.PENDING, failures=0, next_attempt_at=now)
        .returning(model.id)
    )
    await session.execute(select(func.pg_notify(model.channel, "")))
    return len(found.all())


async def listen(url: str, model: type[Outgoing]) -> AsyncGenerator[None]:
    """Tell, once at the start and then at each commit, that something may have become due."""
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, keepalives_idle=30)
    async with connection:
        await connection.execute(f"LISTEN {model.channel}")
        yield
        async with aclosing(connection.notifies()) as notifies:
            async for _ in notifies:
                yield
