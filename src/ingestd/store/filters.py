"""Filter segments: who enters and leaves by their conditions, and whether one is behind (D41, S75, S140).

Who fits is in `store.conditions`. A member is known by the profile's id, which is the hash of the identifier that made
the person; as its text stands the first identifier of the highest precedence, or the mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Connection,
    Executable,
    Row,
    Select,
    Uuid,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from ingestd.domain.identity import IdentifierKind, kind_word
from ingestd.domain.personal import MASK
from ingestd.domain.segment import Method, SegmentStatus, SegmentType
from ingestd.store.engine import new_id
from ingestd.store.profiles import Profile
from ingestd.store.segments import HOLD_MEMBERS, Segment

PARTITION: Final = "members"
"""The one partition of a filter segment."""

_IN_USE: Final = (SegmentStatus.ACTIVE, SegmentStatus.IN_PROGRESS)

# A new segment has no statistics, and the planner takes it for one of next to no members: it would go through all that
# were found for each of them. It cannot do that in a full join, nor where segment and account come along with the
# people, from where it does not see them as constants (`store.load.stage.probe_only`).
_MEMBERS: Final = "SELECT hash FROM segment_members WHERE segment = :segment_number AND valid_to IS NULL"
_MEMBERS_OF_THESE: Final = """
SELECT m.hash
FROM (SELECT CAST(:segment_number AS bigint) AS segment, unnest(CAST(:people AS uuid[])) AS hash OFFSET 0) AS these
    JOIN segment_members m USING (segment, hash)
WHERE m.valid_to IS NULL
"""
_COMPARE: Final = """
CREATE TEMP TABLE changed ON COMMIT DROP AS
SELECT coalesce(w.hash, m.hash) AS hash, w.hash IS NOT NULL AS enters
FROM wanted w FULL JOIN ({members}) m ON m.hash = w.hash
WHERE w.hash IS NULL OR m.hash IS NULL
"""
_LEAVE: Final = {
    SegmentType.SCD: "UPDATE segment_members m SET valid_to = :moment FROM",
    SegmentType.NON_SCD: "DELETE FROM segment_members m USING",
}
_WHO_LEAVES: Final = """
(SELECT CAST(:segment_number AS bigint) AS segment, hash FROM changed WHERE NOT enters OFFSET 0) AS gone
WHERE m.segment = gone.segment AND m.hash = gone.hash AND m.valid_to IS NULL
"""
_ENTER: Final = """
INSERT INTO segment_members (segment, hash, valid_from, kind, partition, value)
SELECT :segment_number, p.profile_id, :moment, named.kind, :number, named.value
FROM (SELECT CAST(:account AS uuid) AS account_id, hash FROM changed WHERE enters OFFSET 0) c
    JOIN profiles p ON p.account_id = c.account_id AND p.profile_id = c.hash, LATERAL (
    SELECT k.kind, CASE json_typeof(p.identifiers -> k.word -> 0)
        WHEN 'string' THEN p.identifiers -> k.word ->> 0 ELSE :mask END AS value
    FROM unnest(CAST(:words AS text[]), CAST(:kinds AS smallint[])) WITH ORDINALITY AS k (word, kind, place)
    WHERE p.identifiers -> k.word IS NOT NULL ORDER BY k.place LIMIT 1
) named
"""
_FINISH: Final = """
UPDATE segments SET members = coalesce(:members, members + :entered - :left), behind = NULL,
    refreshed_at = :moment, refreshed_as = upload_type, data_as_of = :moment,
    status = CASE status WHEN 'in_progress' THEN 'active' ELSE status END
WHERE id = :segment RETURNING members
"""
_PARTITION: Final = """
INSERT INTO partitions (id, account_id, segment_id, number, value, name, disabled, members, created_at)
VALUES (:id, :account, :segment, 1, :value, :value, false, 0, :moment) ON CONFLICT DO NOTHING
"""
_COUNT: Final = "UPDATE partitions SET members = :members, removed_at = NULL WHERE segment_id = :segment"
"""One that was removed is there again with its members, as of a segment whose files bring its value."""
_SNAPSHOT: Final = """
INSERT INTO segment_snapshots (id, account_id, segment_id, ingestion_id, taken_at, members, entered, "left", moved)
VALUES (:id, :account, :segment, :ingestion, :moment, :members, :entered, :left, 0)
"""


class _Wanted(Executable, ClauseElement):
    """Makes the temporary table `wanted` of a query.

    Unlike INSERT this lets PostgreSQL scan with several processes, and unlike SQLAlchemy's own it binds values (T118).
    """

    inherit_cache = False

    def __init__(self, query: Select[Any]) -> None:
        self.query = query


@compiles(_Wanted)
def _compiled(element: _Wanted, compiler: SQLCompiler, **options: Any) -> str:
    return f"CREATE TEMP TABLE wanted ON COMMIT DROP AS {compiler.process(element.query, **options)}"


async def conditions(session: AsyncSession, account_id: UUID) -> dict[UUID, bytes]:
    """The conditions of the account's filter segments, in use or not, by their ids; they are sealed."""
    kept = (Segment.account_id == account_id, Segment.method == Method.FILTER, Segment.deleted_at.is_(None))
    found = await session.execute(select(Segment.id, Segment.condition).where(*kept))
    return {row.id: row.condition for row in found}


def in_use(connection: Connection, account_id: UUID, segment_id: UUID | None = None) -> list[Row[Any]]:
    """The account's filter segments that are in use, or the one: what `recompute` needs of them, the condition sealed.

    In the order in which whoever holds the members of several takes them.
    """
    found = (
        select(
            Segment.id,
            Segment.name,
            Segment.number,
            Segment.type,
            Segment.status,
            Segment.condition,
            Segment.behind,
        )
        .where(
            Segment.account_id == account_id,
            Segment.method == Method.FILTER,
            Segment.status.in_(_IN_USE),
            Segment.deleted_at.is_(None),
        )
        .order_by(Segment.id)
    )
    return list(connection.execute(found if segment_id is None else found.where(Segment.id == segment_id)))


def account_of(connection: Connection, segment_id: UUID) -> UUID | None:
    """Whose segment this is, or None where there is no such segment any more."""
    found: UUID | None = connection.scalar(select(Segment.account_id).where(Segment.id == segment_id))
    return found


def hold(connection: Connection, segment_id: UUID) -> UUID | None:
    """Hold the members of a segment, before its row; gives its `behind`, as whoever held them before has left it."""
    connection.execute(HOLD_MEMBERS, {"segment": segment_id})
    behind: UUID | None = connection.scalar(select(Segment.behind).where(Segment.id == segment_id))
    return behind


def fall_behind(connection: Connection, account_id: UUID, because: UUID) -> None:
    """Note that something begins after which the members of the account's filter segments may not be who fits.

    The first stays noted until a segment's members are found anew, whatever becomes of it.
    """
    for segment in in_use(connection, account_id):
        if segment.behind is None and hold(connection, segment.id) is None:
            connection.execute(update(Segment).where(Segment.id == segment.id).values(behind=because))


def catch_up(connection: Connection, segment_id: UUID) -> None:
    """Note that the members of a filter segment, which the caller holds, are who fits."""
    connection.execute(update(Segment).where(Segment.id == segment_id).values(behind=None))


def refilter(  # noqa: PLR0913 -- whose members, who fits, what they are known by, and among whom
    connection: Connection,
    segment: Row[Any],
    expression: ColumnElement[bool],
    *,
    account_id: UUID,
    kinds: Mapping[str, int],
    ingestion_id: UUID | None,
    people: Sequence[UUID] | None,
) -> bool:
    """Bring a filter segment's members, which the caller holds, to who fits its condition now, in its transaction.

    `people` are the only ones who are looked at, all if None. `kinds` are the account's own attributes that identify
    people. Only what changed is written; gives whether somebody entered or left, or the segment has waited for this.
    """
    names: dict[str, Any] = {"account": account_id, "segment": segment.id, "segment_number": segment.number}
    names |= {"value": PARTITION, "people": people}
    names["moment"] = connection.scalar(select(func.clock_timestamp()))
    connection.execute(text(_PARTITION), names | {"id": new_id()})
    fitting = connection.execute(_Wanted(_who_fits(account_id, expression, people))).rowcount
    connection.execute(text("ANALYZE wanted"))
    connection.execute(text(_COMPARE.format(members=_MEMBERS if people is None else _MEMBERS_OF_THESE)), names)
    connection.execute(text("ANALYZE changed"))
    left = connection.execute(text(_LEAVE[SegmentType(segment.type)] + _WHO_LEAVES), names).rowcount
    order = [*IdentifierKind, *sorted(kinds.values())]
    named = {"words": [kind_word(kind) for kind in order], "kinds": [int(kind) for kind in order], "mask": MASK}
    entered = connection.execute(text(_ENTER), names | named | {"number": 1}).rowcount
    facts = names | {"members": fitting if people is None else None}
    facts |= {"entered": entered, "left": left, "ingestion": ingestion_id}
    # First the segment's row, then the partition's, as all writers do.
    facts["members"] = connection.scalar(text(_FINISH), facts)
    connection.execute(text(_COUNT), facts)
    if segment.type == SegmentType.SCD and entered + left:
        connection.execute(text(_SNAPSHOT), facts | {"id": new_id()})
    connection.execute(text("DROP TABLE wanted, changed"))
    return segment.status == SegmentStatus.IN_PROGRESS or entered + left > 0


def _who_fits(account_id: UUID, expression: ColumnElement[bool], people: Sequence[UUID] | None) -> Select[Any]:
    hash_ = Profile.profile_id.label("hash")
    if people is None:
        return select(hash_).where(Profile.account_id == account_id, expression)
    # The account comes along, where the planner does not see it as a constant (`store.load.stage.probe_only`).
    each = func.unnest(literal(list(people), ARRAY(Uuid))).label("profile_id")
    asked = select(literal(account_id, Uuid).label("account_id"), each).offset(0).subquery("asked")
    same = (Profile.account_id == asked.c.account_id) & (Profile.profile_id == asked.c.profile_id)
    return select(hash_).join_from(asked, Profile, same).where(expression)
