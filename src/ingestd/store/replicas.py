"""Replicas: which processes run workflows, and when each was last heard of."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, func, select, text
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


def at_work(connection: Connection) -> list[str]:
    """Who has workflows in hand: DBOS's own question tries again and again, and would keep a heart from beating."""
    pending = "SELECT DISTINCT executor_id FROM dbos.workflow_status WHERE status = 'PENDING'"
    return list(connection.scalars(text(pending)))


def expect(connection: Connection, at_work: Iterable[str]) -> None:
    """Know the replicas that have work in hand, also one that was forgotten: if it is dead, it goes silent from now."""
    for replica in sorted(at_work):
        connection.execute(insert(Replica).values(id=replica, seen_at=func.now()).on_conflict_do_nothing())


def silent(connection: Connection, replica: str, *, after: float) -> list[str]:
    """The other replicas that have not been heard of for `after` seconds."""
    return list(connection.scalars(select(Replica.id).where(Replica.id != replica, _late(after))))


def bury(connection: Connection, replica: str, *, after: float) -> bool:
    """Forget a replica that has not been heard of for `after` seconds; False where it has, or was forgotten before."""
    return connection.execute(delete(Replica).where(Replica.id == replica, _late(after))).rowcount == 1


def _late(after: float) -> ColumnElement[bool]:
    return Replica.seen_at <= func.now() - func.make_interval(0, 0, 0, 0, 0, 0, after)
