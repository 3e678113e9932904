"""Erasing a person: gone from every table at once, and kept out of what older files still bring (P10, T114, T115)."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import delete, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain.errors import NotFound
from ingestd.keyring import AccountKeys
from ingestd.store.base import SLICES
from ingestd.store.data_sources import DataSourceChange, DataSourceMember
from ingestd.store.events import Event
from ingestd.store.members import forget
from ingestd.store.profiles import (
    Profile,
    ProfileAlias,
    ProfileRedirect,
    Tombstone,
    get_many,
    hashes_of,
    merged_into,
)

# As `store.load.stage.lock_slices`. All of them, in order: who is erased may be merged into another slice just now.
_LOCK: Final = text(
    "SELECT pg_advisory_xact_lock(hashtextextended(CAST(:account AS text), slice)) "
    "FROM generate_series(0, :last) AS slice"
)


async def erase(session: AsyncSession, account_id: UUID, profile_id: UUID, *, keys: AccountKeys, now: datetime) -> None:
    """Remove a person's profile, identifiers, events and memberships in the caller's transaction, or raise NotFound.

    Waits for the parts that are being applied; those that come later find the tombstones of all identifiers.
    """
    await session.execute(_LOCK, {"account": str(account_id), "last": SLICES - 1})
    profile = (await get_many(session, account_id, [profile_id])).get(profile_id)
    if profile is None:
        raise NotFound("There is no such profile.")
    ids = [profile.profile_id, *await merged_into(session, account_id, profile.profile_id)]
    hashes = list(hashes_of(profile, keys))
    of_account = {"account_id": account_id, "erased_at": now}
    stones = insert(Tombstone).values([of_account | {"kind": kind, "hash": hash_} for kind, hash_ in hashes])
    key = [Tombstone.account_id, Tombstone.kind, Tombstone.hash]
    await session.execute(stones.on_conflict_do_update(index_elements=key, set_={"erased_at": now}))
    for statement in (
        delete(Event).where(Event.account_id == account_id, Event.profile_id.in_(ids)),
        delete(ProfileAlias).where(
            ProfileAlias.account_id == account_id, tuple_(ProfileAlias.kind, ProfileAlias.hash).in_(hashes)
        ),
        delete(DataSourceMember).where(DataSourceMember.account_id == account_id, DataSourceMember.profile_id.in_(ids)),
        delete(DataSourceChange).where(DataSourceChange.account_id == account_id, DataSourceChange.profile_id.in_(ids)),
        delete(ProfileRedirect).where(ProfileRedirect.account_id == account_id, ProfileRedirect.profile_id.in_(ids)),
        delete(Profile).where(Profile.account_id == account_id, Profile.profile_id == profile.profile_id),
    ):
        await session.execute(statement.execution_options(synchronize_session=False))
    await forget(session, account_id, [hash_ for _, hash_ in hashes])
