"""What goes out of the house, by webhook or by mail: claimed under a lease, tried, marked, and tried again (P5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, case, cast, func, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.store.base import Key
from ingestd.store.notices import CHANNEL

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
    `failures` counts the present series of attempts; `attempts` are those of every series.
    """

    id: Mapped[Key] = mapped_column(server_default=func.gen_random_uuid())
    state: Mapped[str]
    failures: Mapped[int]
    attempts: Mapped[list[Any]]
    next_attempt_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


Out = TypeVar("Out", bound=Outgoing)


@dataclass(frozen=True, slots=True)
class Lease:
    """Something that is this dispatcher's until `lease`."""

    id: UUID
    lease: datetime
    failures: int
    account_id: UUID
    notice_id: UUID


async def next_due(session: AsyncSession, model: type[Out], *, now: datetime) -> datetime | None:
    """When the next falls due after `now`, which is that of the last `claim`: others wait for one to end."""
    found: datetime | None = await session.scalar(
        select(func.min(model.next_attempt_at)).where(model.next_attempt_at > now)
    )
    return found


async def mark(
    session: AsyncSession,
    model: type[Out],
    claimed: Lease,
    attempt: dict[str, Any],
    *,
    delivered: bool,
    again_at: datetime | None,
) -> None:
    """Write what came of an attempt: delivered, due again at a time, or dead. Nothing once the lease is another's."""
    undelivered = DeliveryState.PENDING if again_at else DeliveryState.DEAD
    has_room = func.jsonb_array_length(model.attempts) < ATTEMPTS_KEPT
    kept = case((has_room, model.attempts), else_=model.attempts.op("-")(0))
    await session.execute(
        update(model)
        .where(model.id == claimed.id, model.state == DeliveryState.SENDING, model.next_attempt_at == claimed.lease)
        .values(
            state=DeliveryState.DELIVERED if delivered else undelivered,
            next_attempt_at=None if delivered else again_at,
            failures=model.failures + int(not delivered),
            attempts=kept.op("||")(cast([attempt], JSONB)),
        )
        .execution_options(synchronize_session=False)
    )


async def restart(session: AsyncSession, model: type[Out], *which: ColumnElement[bool], now: datetime) -> int:
    """Begin a new series of attempts now for some that are not just being sent, and count them."""
    found = await session.execute(
        update(model)
        .where(model.state != DeliveryState.SENDING, *which)
        .values(state=DeliveryState.PENDING, failures=0, next_attempt_at=now)
        .returning(model.id)
    )
    await session.execute(select(func.pg_notify(CHANNEL, "")))
    return len(found.all())
