"""Runs: a row for each time that a file was to be fetched, the execution log (S46).

`attempt` is the run's fence: a process that fetches for an attempt that is no longer the newest changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Row,
    Select,
    UniqueConstraint,
    Uuid,
    and_,
    any_,
    delete,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, aliased, mapped_column

from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.ids import Prefix
from ingestd.domain.ingestion import Channel, Stage, Status
from ingestd.domain.plan import Mode, Target
from ingestd.domain.run import Outcome, Result, RunState, RunView
from ingestd.domain.schedule import OwnerKind
from ingestd.store.base import Base, Key
from ingestd.store.data_sources import DataSource
from ingestd.store.files import File
from ingestd.store.ingestions import Ingestion
from ingestd.store.page import Cut, Sorts
from ingestd.store.segments import Segment

IS_OPEN: Final = text("state <> 'ended'")


class Run(Base):
    """One time that a file was to be fetched.

    `slot` is null where somebody asked for it. `connection_id`, `path`, `mode` and `recipients` are the schedule's of
    then.
    """

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("schedule_id", "slot"),
        Index("ix_runs_account_id_created_at_id", "account_id", "created_at", "id"),
        Index("ix_runs_owner_id_created_at_id", "owner_id", "created_at", "id"),
        Index("ix_runs_open", "owner_id", postgresql_where=IS_OPEN),
    )

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    schedule_id: Mapped[UUID | None] = mapped_column(ForeignKey("schedules.id", ondelete="SET NULL"))
    owner_kind: Mapped[str]
    owner_id: Mapped[UUID]
    slot: Mapped[date | None]
    due_at: Mapped[datetime]
    requested_by: Mapped[dict[str, Any] | None]
    connection_id: Mapped[UUID]
    path: Mapped[str]
    mode: Mapped[str]
    recipients: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    state: Mapped[str]
    attempt: Mapped[int]
    result: Mapped[str | None]
    outcome: Mapped[str | None]
    file_name: Mapped[str | None]
    file_size_bytes: Mapped[int | None]
    data_as_of: Mapped[datetime | None]
    why: Mapped[str | None]
    ingestion_id: Mapped[UUID | None] = mapped_column(ForeignKey("ingestions.id"), index=True)
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


SORTS: Final[Sorts] = {"created_at": (Run.created_at, Run.id)}

NewestFile = Row[str, int, str, datetime, str, str]
"""A row of `newest_file`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which runs: of all `owners`; what is empty or None is no matter. The times are half-open."""

    owners: Collection[UUID] = ()
    outcome: Outcome | None = None
    results: Collection[Result] = ()
    created_from: datetime | None = None
    created_to: datetime | None = None


async def page(session: AsyncSession, account_id: UUID, cut: Cut, wanted: Wanted) -> list[Row[Any]]:
    """Some of the wanted runs of the account, as rows of `shown`."""
    conditions = [Run.account_id == account_id, *(Run.owner_id == owner for owner in wanted.owners)]
    if wanted.outcome is not None:
        conditions.append(Run.outcome == wanted.outcome)
    if wanted.results:
        conditions.append(Run.result.in_(wanted.results))
    if wanted.created_from is not None:
        conditions.append(Run.created_at >= wanted.created_from)
    if wanted.created_to is not None:
        conditions.append(Run.created_at < wanted.created_to)
    found = await session.execute(cut.of(shown(*conditions)))
    return list(found.all())


async def get(session: AsyncSession, account_id: UUID, run_id: UUID) -> Row[Any]:
    """A run of the account as `shown` gives it, or NotFound."""
    found = await session.execute(shown(Run.account_id == account_id, Run.id == run_id))
    row: Row[Any] | None = found.one_or_none()
    if row is None:
        raise NotFound("There is no such run.")
    return row


async def add(session: AsyncSession, run: Run) -> bool:
    """Keep a new run; False, and nothing is kept, where there is one of its slot already."""
    values = {column.name: getattr(run, column.name) for column in Run.__table__.columns}
    added = await session.execute(insert(Run).values(values).on_conflict_do_nothing().returning(Run.id))
    return added.first() is not None


async def is_open(session: AsyncSession, owner_id: UUID) -> bool:
    """Whether a run of a segment or a data source goes on: one that is held waits for somebody, and nobody for it."""
    goes_on = Ingestion.stage.is_distinct_from(Stage.HELD)
    found = select(Run.id).outerjoin(Ingestion, Ingestion.id == Run.ingestion_id)
    return await session.scalar(found.where(Run.owner_id == owner_id, IS_OPEN, goes_on).limit(1)) is not None


async def claim(session: AsyncSession, run_id: UUID, *, now: datetime) -> Run | None:
    """Begin a new attempt at fetching, and give the run as it is now; None where it needs no fetching any more."""
    found: Run | None = await session.scalar(
        update(Run)
        .where(Run.id == run_id, Run.state.in_((RunState.QUEUED, RunState.FETCHING)))
        .values(state=RunState.FETCHING, attempt=Run.attempt + 1, started_at=func.coalesce(Run.started_at, now))
        .returning(Run)
    )
    return found


async def change(session: AsyncSession, run: Run, **values: Any) -> bool:
    """Change a run that is being fetched; False, and nothing changes, where another attempt has begun since."""
    changed = await session.execute(
        update(Run)
        .where(Run.id == run.id, Run.attempt == run.attempt, Run.state == RunState.FETCHING)
        .values(**values)
        .returning(Run.id)
    )
    return changed.first() is not None


async def newest_file(session: AsyncSession, run: Run) -> NewestFile | None:
    """The file that the owner of a run has its data of, or will have when what is queued or held is done; or None.

    What only adds to that file does not count: its rejected rows, mended by hand or tried again, the people whom a data
    source's file put into a segment, and what was appended by hand, unless there is nothing else. With its name, size
    and hash, its time on the other server, or if it came by hand, that of its arrival, and `status` and `stage` of its
    ingestion.
    """
    owned = {
        OwnerKind.SEGMENT: (Ingestion.segment_id == run.owner_id) & (Ingestion.target == Target.SEGMENT),
        OwnerKind.DATA_SOURCE: Ingestion.data_source_id == run.owner_id,
    }
    statement = (
        select(
            File.name,
            File.size_bytes,
            File.sha256,
            func.coalesce(Run.data_as_of, File.received_at).label("modified_at"),
            Ingestion.status,
            Ingestion.stage,
        )
        .join(Ingestion, Ingestion.file_id == File.id)
        .outerjoin(Run, Run.ingestion_id == Ingestion.id)
        .where(
            Ingestion.account_id == run.account_id,
            owned[OwnerKind(run.owner_kind)],
            _brings_a_file(Ingestion),
        )
        .order_by(_whole(Ingestion).desc(), Ingestion.created_at.desc(), Ingestion.id.desc())
        .limit(1)
    )
    found = await session.execute(statement)
    return found.one_or_none()


def _brings_a_file(of: type[Ingestion]) -> ColumnElement[bool]:
    """That an ingestion brought a file, or will, and no rows of an earlier one."""
    return and_(
        of.rows_of.is_(None),
        (of.channel == Channel.SCHEDULE) | of.checked["returned"].astext.is_distinct_from("true"),
        of.status.not_in((Status.FAILED, Status.CANCELLED)),
        of.dry_run.is_(False),
    )


def _whole(of: type[Ingestion]) -> ColumnElement[bool]:
    """That the file of an ingestion is all that its owner has, and does not only add to it."""
    return (of.mode == Mode.REPLACE) | (of.channel == Channel.SCHEDULE)


async def owner_name(session: AsyncSession, run_id: UUID) -> str | None:
    """The name of the segment or data source that a run was to keep fresh; None where the run is not kept any more."""
    names = select(func.coalesce(Segment.name, DataSource.name)).select_from(Run)
    named = names.outerjoin(Segment, Segment.id == Run.owner_id).outerjoin(DataSource, DataSource.id == Run.owner_id)
    found: str | None = await session.scalar(named.where(Run.id == run_id))
    return found


def webhooks_of(connection: Connection, run: Row[Any]) -> list[UUID]:
    """The webhooks that are chosen for what a run was to keep fresh."""
    owner = DataSource if run.owner_kind == OwnerKind.DATA_SOURCE else Segment
    return connection.scalar(select(owner.webhook_ids).where(owner.id == run.owner_id)) or []


def end_of_ingestion(
    connection: Connection, ingestion_id: UUID, result: Result, *, error: dict[str, Any] | None, now: datetime
) -> UUID | None:
    """End the run whose ingestion has ended; gives the run's id, or None where the ingestion is no run's."""
    found: UUID | None = connection.scalar(
        update(Run)
        .where(Run.ingestion_id == ingestion_id, Run.state != RunState.ENDED)
        .values(ended(result, now=now, error=error))
        .returning(Run.id)
    )
    return found


def expire(connection: Connection, before: UUID, *, at_most: int) -> int:
    """Forget runs made before an id that have ended; their number.

    The one that brought the file its owner has its data of stays: it says when that was changed (`newest_file`).
    """
    made, later = aliased(Ingestion), aliased(Ingestion)
    has_newer = select(later.id).where(
        or_(later.segment_id == Run.owner_id, later.data_source_id == Run.owner_id),
        tuple_(later.created_at, later.id) > tuple_(made.created_at, made.id),
        later.target == made.target,
        _brings_a_file(later),
        _whole(later),
    )
    over = (
        select(Run.id)
        .outerjoin(made, (made.id == Run.ingestion_id) & made.status.not_in((Status.FAILED, Status.CANCELLED)))
        .where(Run.id < before, Run.state == RunState.ENDED, made.id.is_(None) | has_newer.exists())
        .order_by(Run.id)
        .limit(at_most)
    )
    return connection.execute(delete(Run).where(Run.id == any_(func.array(over.scalar_subquery())))).rowcount


def ended(result: Result, *, now: datetime, error: dict[str, Any] | None = None) -> dict[str, Any]:
    """What is changed of a run that ends."""
    return {
        "state": RunState.ENDED,
        "result": result,
        "outcome": result.outcome,
        "error": error,
        "finished_at": now,
    }


def shown(*where: ColumnElement[bool]) -> Select[Any]:
    """The statement that gives runs with all that `view` shows; for either kind of connection."""
    return (
        select(Run.__table__, Ingestion.status, Ingestion.stage, Ingestion.counts)
        .outerjoin(Ingestion, Ingestion.id == Run.ingestion_id)
        .where(*where)
    )


def view(row: Row[Any]) -> RunView:
    """A run as clients and webhook receivers see it, from a row of `shown`."""
    found = row._mapping  # noqa: SLF001 -- SQLAlchemy's public name for it
    owner = {
        kind: ids.show(prefix, found["owner_id"]) if found["owner_kind"] == kind else None
        for kind, prefix in _PREFIXES.items()
    }
    file = found["file_name"] and {
        "name": found["file_name"],
        "size_bytes": found["file_size_bytes"],
        "modified_at": found["data_as_of"],
    }
    ingestion = found["ingestion_id"] and {
        "id": ids.show(Prefix.INGESTION, found["ingestion_id"]),
        "status": found["status"],
    }
    held = found["state"] == RunState.INGESTING and found["stage"] == Stage.HELD
    took = found["started_at"] and found["finished_at"] and found["finished_at"] - found["started_at"]
    return RunView.model_validate(
        {name: found[name] for name in _SHOWN_AS_THEY_ARE}
        | owner
        | {
            "id": ids.show(Prefix.RUN, found["id"]),
            "state": RunState.HELD if held else found["state"],
            "file": file,
            "ingestion": ingestion,
            "attempts": found["attempt"],
            "duration_seconds": took.total_seconds() if took is not None else None,
        }
    )


_PREFIXES: Final = {OwnerKind.SEGMENT: Prefix.SEGMENT, OwnerKind.DATA_SOURCE: Prefix.DATA_SOURCE}

_SHOWN_AS_THEY_ARE = (
    "slot", "due_at", "outcome", "result", "why", "data_as_of", "counts", "error", "created_at", "started_at",
    "finished_at",
)  # fmt: skip
