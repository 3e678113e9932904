"""Erasing a person: gone from every table at once, and kept out of what older files still bring (P10, T114, T115)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Uuid, any_, delete, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain.errors import NotFound
from ingestd.domain.identity import SLICES
from ingestd.keyring import AccountKeys
from ingestd.store import source_changes
from ingestd.store.base import hidden_from_planner
from ingestd.store.data_sources import DataSource, DataSourceMember
from ingestd.store.events import Event
from ingestd.store.members import forget
from ingestd.store.profiles import (
    SLICE_KEY,
    Profile,
    ProfileRedirect,
    find_many,
    get_many,
    hashes_of,
    merged_into,
)

# All slices, in order: who is erased may be merged into another one just now.
_LOCK: Final = text(
    f"SELECT pg_advisory_xact_lock({SLICE_KEY.format(':account')})"  # noqa: S608 -- a constant of ours
    " FROM generate_series(0, :last) AS slice"
)

# People can have any number of identifiers, of which a statement could not bind each by itself.
_REMOVE_ALIASES: Final = text("""
    DELETE FROM profile_aliases a USING (
        SELECT CAST(:account AS uuid) AS account_id, unnest(CAST(:kinds AS smallint[])) AS kind,
            unnest(CAST(:hashes AS uuid[])) AS hash
    ) gone
    WHERE a.account_id = gone.account_id AND a.kind = gone.kind AND a.hash = gone.hash
""")
_SET_STONES: Final = text("""
    INSERT INTO tombstones (account_id, kind, hash, erased_at)
    SELECT :account, kind, hash, :now
    FROM unnest(CAST(:kinds AS smallint[]), CAST(:hashes AS uuid[])) AS gone (kind, hash)
    ON CONFLICT (account_id, kind, hash) DO UPDATE SET erased_at = excluded.erased_at
""")


@dataclass(frozen=True, slots=True)
class Erased:
    """What went: the ids of profiles, and how many periods in how many segments."""

    profiles: tuple[UUID, ...]
    memberships: int


async def erase(session: AsyncSession, account_id: UUID, profile_id: UUID, *, keys: AccountKeys, now: datetime) -> None:
    """Remove a person's profile, identifiers, events and memberships in the caller's transaction, or raise NotFound.

    Waits for the parts that are being applied; those that come later find the tombstones of all identifiers.
    """
    await lock(session, account_id)
    profile = (await get_many(session, account_id, [profile_id])).get(profile_id)
    if profile is None:
        raise NotFound("There is no such profile.")
    await _erase(session, account_id, [profile], (), keys=keys, now=now)


async def erase_identifiers(
    session: AsyncSession,
    account_id: UUID,
    identifiers: Collection[tuple[int, UUID]],
    *,
    keys: AccountKeys,
    now: datetime,
) -> Erased:
    """Remove whoever has one of these identifiers, given as (kind, hash), as `erase` does; and the identifiers.

    So nothing is left of people without a profile either, who are members of segments only (D40).
    """
    await lock(session, account_id)
    people = await find_many(session, account_id, identifiers)
    profiles = {profile.profile_id: profile for profile in people.values()}
    memberships = await _erase(session, account_id, profiles.values(), identifiers, keys=keys, now=now)
    return Erased(tuple(profiles), memberships)


async def lock(session: AsyncSession, account_id: UUID) -> None:
    """Wait for the parts that are being applied, and let none begin until the caller's transaction ends."""
    await session.execute(_LOCK, {"account": str(account_id), "last": SLICES - 1})


async def _erase(
    session: AsyncSession,
    account_id: UUID,
    profiles: Collection[Profile],
    others: Collection[tuple[int, UUID]],
    *,
    keys: AccountKeys,
    now: datetime,
) -> int:
    """Remove people with all their identifiers, and `others`; gives how many periods in segments that were.

    Identifiers are kept out of what older files bring, and taken out of all segments.
    """
    survivors = [profile.profile_id for profile in profiles]
    ids = [*survivors, *await merged_into(session, account_id, survivors)]
    theirs = any_(literal(ids, ARRAY(Uuid)))
    identifiers = {identifier for profile in profiles for identifier in hashes_of(profile, keys)}
    account = hidden_from_planner(account_id)
    sources = select(DataSource.id).where(DataSource.account_id == account_id)
    for statement in (
        delete(Event).where(Event.account_id == account, Event.profile_id == theirs),
        delete(DataSourceMember).where(
            DataSourceMember.account_id == account,
            DataSourceMember.data_source_id.in_(sources),
            DataSourceMember.profile_id == theirs,
        ),
        delete(ProfileRedirect).where(ProfileRedirect.account_id == account, ProfileRedirect.profile_id == theirs),
        delete(Profile).where(Profile.account_id == account, Profile.profile_id == theirs),
    ):
        await session.execute(statement.execution_options(synchronize_session=False))
    await session.execute(_REMOVE_ALIASES, _named(account_id, identifiers))
    await source_changes.forget(session, account_id, ids)
    shut_out = identifiers | set(others)
    await session.execute(_SET_STONES, _named(account_id, shut_out) | {"now": now})
    return await forget(session, account_id, [hash_ for _, hash_ in shut_out])


def _named(account_id: UUID, identifiers: Collection[tuple[int, UUID]]) -> dict[str, Any]:
    """Identifiers as the statements take them."""
    return {
        "account": account_id,
        "kinds": [kind for kind, _ in identifiers],
        "hashes": [hash_ for _, hash_ in identifiers],
    }
