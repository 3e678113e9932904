"""What each ingestion changed in its data source: who entered, left or was changed by it (S67, D16)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Connection, Row, String, Uuid, column, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.store import expiry
from ingestd.store.base import Base
from ingestd.store.page import Cut, Sorts


class Move(StrEnum):
    """What an ingestion did to somebody in its data source (D16)."""

    ENTERED = "entered"
    LEFT = "left"
    CHANGED = "changed"


class DataSourceChange(Base):
    """Some people, sorted, TOLD_AT_ONCE at most, to whom an ingestion did the same; of who stayed as they were is none.

    A row for each of them would cost as much as entering them. Of one move of an ingestion no two rows overlap; `last`
    is the last id that a row began with, which may have been erased since.

    No foreign key holds `ingestion_id`: the transaction that writes a row holds that ingestion by its fence
    (`fencing.guard`), and an ingestion goes only with its whole account, as these do.
    """

    __tablename__ = "data_source_changes"

    account_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    ingestion_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    move: Mapped[str] = mapped_column(primary_key=True)
    last: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    people: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))


TOLD_AT_ONCE: Final = 100
"""As many ids as a row holds that needs no second place for what is long."""

SORTS: Final[Sorts] = {"profile": (column("profile_id", Uuid),)}

PAGE: Final = """
SELECT profile_id, wanted.move FROM unnest(CAST(:moves AS text[])) AS wanted (move), LATERAL (
    SELECT people, sum(cardinality(people)) OVER (ORDER BY last {order}) - cardinality(people) AS before FROM (
        SELECT last, people FROM data_source_changes
        WHERE account_id = :account AND ingestion_id = :ingestion AND move = wanted.move
            AND people <> '{{}}' AND {from_}
        ORDER BY last {order} LIMIT :most + 1
    ) AS nearest
) AS packed, unnest(people) AS profile_id
WHERE before < :most + :told
"""
"""Everybody in the rows of which a page of `most` people is cut; of its first row there may be nobody in it."""

UP: Final = "last >= coalesce(CAST(:after AS uuid), '00000000-0000-0000-0000-000000000000')"
DOWN: Final = """last <= coalesce((
            SELECT last FROM data_source_changes
            WHERE account_id = :account AND ingestion_id = :ingestion AND move = wanted.move
                AND last >= CAST(:after AS uuid)
            ORDER BY last LIMIT 1
        ), 'ffffffff-ffff-ffff-ffff-ffffffffffff')"""
"""Going down, the row in which a page ends is the first that reaches as far."""

FORGET: Final = """
UPDATE data_source_changes c SET people = ARRAY (
    SELECT one FROM unnest(c.people) WITH ORDINALITY AS each (one, place)
    WHERE one <> ALL (CAST(:people AS uuid[])) ORDER BY place
)
FROM (
    SELECT DISTINCT i.id AS ingestion_id, each.move, place.last
    FROM data_sources s JOIN ingestions i ON i.data_source_id = s.id,
        unnest(CAST(:moves AS text[])) AS each (move), unnest(CAST(:people AS uuid[])) AS gone (person),
        LATERAL (
            SELECT last FROM data_source_changes
            WHERE account_id = :account AND ingestion_id = i.id AND move = each.move AND last >= gone.person
            ORDER BY last LIMIT 1
        ) AS place
    WHERE s.account_id = :account
) AS found
WHERE c.account_id = :account AND c.ingestion_id = found.ingestion_id AND c.move = found.move
    AND c.last = found.last AND c.people && CAST(:people AS uuid[])
"""


async def page(
    session: AsyncSession, account_id: UUID, ingestion_id: UUID, cut: Cut, moves: Collection[Move]
) -> Sequence[Row[Any]]:
    """What an ingestion changed in its data source, of it some kinds: "profile_id" and "move"."""
    statement = text(PAGE.format(order="DESC" if cut.descending else "ASC", from_=DOWN if cut.descending else UP))
    names = {"account": account_id, "ingestion": ingestion_id, "moves": list(moves or Move)}
    names |= {"after": cut.after[0] if cut.after else None, "most": cut.limit + 1, "told": TOLD_AT_ONCE}
    changes = statement.bindparams(**names).columns(column("profile_id", Uuid), column("move", String)).subquery()
    found = await session.execute(
        cut.of(select(column("profile_id", Uuid), column("move", String)).select_from(changes))
    )
    return found.all()


async def forget(session: AsyncSession, account_id: UUID, profile_ids: Collection[UUID]) -> None:
    """Remove some people from all that was told of them."""
    names = {"account": account_id, "people": list(profile_ids), "moves": list(Move)}
    await session.execute(text(FORGET), names)


_EXPIRE: Final = expiry.of_rows("data_source_changes", "ingestion_id")


def expire(connection: Connection, before: UUID, *, at_most: int) -> int:
    """Forget what ingestions made before an id have changed; the number of rows."""
    return connection.execute(_EXPIRE, {"before": before, "at_most": at_most}).rowcount
