"""Replicas: which processes run workflows, and when each was last heard of."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.store.base import Base


class Replica(Base):
    """A process that runs workflows; time is the database's."""

    __tablename__ = "replicas"

    id: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime]


def beat(connection: Connection, replica: str) -> None:
    """Record that a replica lives."""
    row = insert(Replica).values(id=replica, seen_at=func.now())
    connection.execute(row.on_conflict_do_update(index_elements=[Replica.id], set_={"seen_at": func.now()}))


def silent(connection: Connection, replica: str, *, after: float) -> list[str]:
    """The other replicas that have not been heard of for `after` seconds."""
    late = Replica.seen_at <= func.now() - func.make_interval(0, 0, 0, 0, 0, 0, after)
    return list(connection.scalars(select(Replica.id).where(Replica.id != replica, late)))


def bury(connection: Connection, replica: str) -> bool:
    """Forget a dead replica; False where another process has just done so, or holds the row."""
    return connection.execute(delete(Replica).where(Replica.id == replica)).rowcount == 1
