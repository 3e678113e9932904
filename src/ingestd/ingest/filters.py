"""Filter segments are made and recomputed here (D41, S75, S140).

A condition can hold personal values, so it is kept sealed, as a secret of its segment.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd import telemetry
from ingestd.domain.condition import Condition, fits_nothing, read, tests_of, written
from ingestd.domain.notice import NoticeType
from ingestd.domain.segment import SegmentStatus
from ingestd.ingest.tell import tell_segment
from ingestd.keyring import AccountKeys, Keyring
from ingestd.store import accounts, conditions, filters, segments
from ingestd.store.attributes import Attribute
from ingestd.store.engine import is_transient, utc_now

NOT_RECOMPUTED: Final = "The members of the segment {!r} could not be found anew: it keeps those it had."

log = telemetry.logger(__name__)


def seal_condition(keys: AccountKeys, segment_id: UUID, condition: Condition) -> bytes:
    """The condition as it is kept with its segment."""
    return keys.seal_secret(_place(segment_id), written(condition))


def open_condition(keys: AccountKeys, segment_id: UUID, sealed: bytes) -> Condition:
    """The condition of a segment."""
    return read(keys.open_secret(_place(segment_id), sealed))


async def asked_of(session: AsyncSession, keys: AccountKeys, attribute: Attribute) -> bool:
    """Whether the condition of any segment of the account is over an attribute."""
    names = {attribute.name, attribute.segment_name}
    kept = await filters.conditions(session, attribute.account_id)
    return any(
        test.attribute in names
        for segment_id, sealed in kept.items()
        for test in tests_of(open_condition(keys, segment_id, sealed))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What an ingestion has changed, as far as filter segments are concerned.

    `names` are the attributes that may have another value now, None if any may; `people` those of whom they may, None
    if they are too many to be told; `made` says that there may be new people among them.
    """

    ingestion_id: UUID
    names: Collection[str] | None
    people: Sequence[UUID] | None
    made: bool

    def concerns(self, condition: Condition, meanings: conditions.Meanings) -> bool:
        """Whether people may fit a condition now who did not before, or the other way round."""
        used = {meanings[test.attribute].name for test in tests_of(condition) if test.attribute in meanings}
        return self.names is None or not used.isdisjoint(self.names) or (self.made and fits_nothing(condition))


def recompute(
    connection: Connection,
    keys: AccountKeys,
    account_id: UUID,
    *,
    segment_id: UUID | None = None,
    brought: Brought | None = None,
    leniently: bool = False,
) -> list[str]:
    """Recompute the account's filter segments in use, in the caller's transaction.

    Only the one, if given; only those that what was `brought` concerns, and among its people, unless that is None. One
    that was behind already is recomputed among everybody. Where this is done `leniently`, one that fails is left as it
    was; gives a warning for each of those.
    """
    warnings = []
    ingestion_id = None if brought is None else brought.ingestion_id
    rows = filters.in_use(connection, account_id, segment_id)
    meanings = conditions.meanings_of(connection, account_id) if rows else {}
    kinds = {meaning.name: meaning.kind for meaning in meanings.values() if meaning.kind is not None}
    for row in rows:
        try:
            with connection.begin_nested():
                condition = open_condition(keys, row.id, row.condition)
                fits = conditions.matches(condition, meanings, keys)
                behind = filters.hold(connection, row.id)
                after = brought if row.status == SegmentStatus.ACTIVE and behind in {None, ingestion_id} else None
                if after and not after.concerns(condition, meanings):
                    filters.catch_up(connection, row.id)
                elif filters.refilter(
                    connection,
                    row,
                    fits,
                    account_id=account_id,
                    kinds=kinds,
                    ingestion_id=ingestion_id,
                    people=None if after is None else after.people,
                ):
                    tell_segment(connection, NoticeType.SEGMENT_REFRESHED, row.id, now=utc_now())
        except Exception as fault:
            if not leniently or is_transient(fault):
                raise
            log.exception("segment_not_recomputed", segment=str(row.id))
            warnings.append(NOT_RECOMPUTED.format(row.name))
    return warnings


def recompute_one(sql: Engine, keyring: Keyring, segment_id: UUID) -> None:
    """Compute the members of one filter segment, unless it is not in use any more."""
    with sql.begin() as connection:
        account_id = filters.account_of(connection, segment_id)
        sealed = None if account_id is None else accounts.keys_for_sealing(connection, account_id, shared=True)
        if account_id is not None and sealed is not None:
            recompute(connection, keyring.open(account_id, sealed), account_id, segment_id=segment_id)


def give_up(sql: Engine, segment_id: UUID) -> None:
    """Take a filter segment out of use whose members cannot be found: it can be mended, and activated again (P6)."""
    with sql.begin() as connection:
        if segments.deactivate(connection, segment_id):
            tell_segment(connection, NoticeType.SEGMENT_DEACTIVATED, segment_id, now=utc_now())


def _place(segment_id: UUID) -> str:
    return f"condition {segment_id}"
