"""Profiles, the identifiers that name them, and who has been erased.

A profile's id is the hash of the identifier that first created the person, and never changes (D54). So most identifiers
need no row to be found by: `profile_aliases` holds only those whose hash is not their profile's id. A profile that was
merged into another leaves a redirect.

Whoever writes profiles holds their slices (`store.load.stage.lock_slices`) to the end of the transaction.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Index, SmallInteger, Uuid, select, tuple_
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.domain.identity import SLICES, kind_of
from ingestd.domain.personal import SEALED, identifier_place, is_sealed
from ingestd.keyring import AccountKeys
from ingestd.store.base import Base, hidden_from_planner

SLICE_KEY: Final = "hashtextextended(CAST({} AS text), slice)"
"""The key of the lock of a slice of an account's people, made of the account's id; whoever writes them holds it."""

FILL: Final = 45
"""Percent of a page that is filled at first: an updated row stays on its page, so no index is touched."""


class Profile(Base):
    """A person of an account.

    `attributes` {name: value, list of values, {"$D": epoch seconds} or {"$E": token}}; `preferences` {name: boolean};
    `identifiers` {kind: [values]}; all three stand as they were written (0017). `origin` is the number
    (`ingestions.seq`) of the ingestion that made the row, `origins` {attribute: seq of the one that last changed or
    deleted it}, null while that is `origin` for all. `last_ts` (epoch seconds) came with the last change. `digest` is
    that of the rows of a file that changed it last (`pipeline.digest`); whoever changes it otherwise sets that null.
    """

    __tablename__ = "profiles"
    __table_args__ = {"postgresql_partition_by": "RANGE (profile_id)"}  # noqa: RUF012 -- SQLAlchemy's own way

    account_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    profile_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    attributes: Mapped[dict[str, Any]] = mapped_column(JSON)
    preferences: Mapped[dict[str, Any]] = mapped_column(JSON)
    identifiers: Mapped[dict[str, Any]] = mapped_column(JSON)
    origin: Mapped[int]
    origins: Mapped[dict[str, Any] | None]
    last_ts: Mapped[int | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    digest: Mapped[int | None]


class ProfileAlias(Base):
    """An identifier, by its hash, whose profile has another id than that; the profile may not be there (0016)."""

    __tablename__ = "profile_aliases"
    __table_args__ = {"postgresql_partition_by": "RANGE (hash)"}  # noqa: RUF012 -- SQLAlchemy's own way

    account_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    hash: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    profile_id: Mapped[UUID]


class ProfileRedirect(Base):
    """A profile that was merged into another; never a chain, the survivor is a profile."""

    __tablename__ = "profile_redirects"
    __table_args__ = (Index("ix_profile_redirects_account_id_survivor_id", "account_id", "survivor_id"),)

    account_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    profile_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    survivor_id: Mapped[UUID]
    origin: Mapped[int]


class ProfileKind(Base):
    """A kind, not identity, of which identifiers name profiles of the account: their hash may be a profile's id."""

    __tablename__ = "profile_kinds"

    account_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True)


class Tombstone(Base):
    """An identifier of an erased person: rows received before that are skipped (T114, T115)."""

    __tablename__ = "tombstones"

    account_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    hash: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    erased_at: Mapped[datetime]


def partitions(table: str, storage: str = "") -> list[str]:
    """The statements that cut a table into SLICES equal ranges of its uuid, `<table>_p_00` and so on."""
    bounds = ["MINVALUE", *(f"'{UUID(int=number << 124)}'" for number in range(1, SLICES)), "MAXVALUE"]
    return [
        f"CREATE TABLE {table}_p_{number:02d} PARTITION OF {table} "
        f"FOR VALUES FROM ({bounds[number]}) TO ({bounds[number + 1]}){storage}"
        for number in range(SLICES)
    ]


UNSAMPLED: Final = [
    f"ALTER TABLE profiles_p_{number:02d} "
    + ", ".join(f"ALTER {name} SET STATISTICS 0" for name in ("attributes", "preferences", "identifiers", "origins"))
    for number in range(SLICES)
]
"""No plan needs statistics of these, and sorting JSON for them would cost every load some seconds afterwards."""

PARTITION_DDL: Final = [
    *partitions("profiles", f" WITH (fillfactor = {FILL})"),
    *partitions("profile_aliases"),
    *UNSAMPLED,
]
"""What the migration and the tests run after the tables of this module are made."""


def identifier_hash(index_key: str, kind: int, value: str) -> UUID:
    """The hash of a normalised identifier: HMAC-SHA-256 of kind, NUL and value, the first 128 bits."""
    return UUID(bytes=hmac.digest(index_key.encode(), f"{kind}\0{value}".encode(), "sha256")[:16])


def hashes_of(profile: Profile, keys: AccountKeys) -> Iterator[tuple[int, UUID]]:
    """The identifiers of a person as (kind, hash), those that are sealed opened for it."""
    for word, values in profile.identifiers.items():
        kind = kind_of(word)
        for value in values:
            text = json.loads(keys.open_value(identifier_place(word), value[SEALED])) if is_sealed(value) else value
            yield kind, identifier_hash(keys.index_key, kind, text)


async def get_many(session: AsyncSession, account_id: UUID, profile_ids: Collection[UUID]) -> dict[UUID, Profile]:
    """The profiles of these ids, redirects followed; ids that are nobody's are absent."""
    survivors = await _survivors(session, account_id, profile_ids)
    wanted = {profile_id: survivors.get(profile_id, profile_id) for profile_id in profile_ids}
    found = await session.scalars(
        select(Profile).where(Profile.account_id == account_id, Profile.profile_id.in_(set(wanted.values())))
    )
    profiles = {profile.profile_id: profile for profile in found}
    return {asked: profiles[profile_id] for asked, profile_id in wanted.items() if profile_id in profiles}


async def find_many(
    session: AsyncSession, account_id: UUID, identifiers: Collection[tuple[int, UUID]]
) -> dict[tuple[int, UUID], Profile]:
    """The profiles that identifiers, given as (kind, hash), name; those that name nobody are absent."""
    aliases = await session.execute(
        select(ProfileAlias.kind, ProfileAlias.hash, ProfileAlias.profile_id).where(
            ProfileAlias.account_id == account_id, tuple_(ProfileAlias.kind, ProfileAlias.hash).in_(identifiers)
        )
    )
    of_alias = {(kind, hash_): profile_id for kind, hash_, profile_id in aliases}
    ids = {identifier: of_alias.get(identifier, identifier[1]) for identifier in identifiers}
    profiles = await get_many(session, account_id, set(ids.values()))
    return {identifier: profiles[profile_id] for identifier, profile_id in ids.items() if profile_id in profiles}


async def merged_into(session: AsyncSession, account_id: UUID, profile_ids: Collection[UUID]) -> Sequence[UUID]:
    """The ids of the profiles that were merged into these."""
    found = await session.scalars(
        select(ProfileRedirect.profile_id).where(
            ProfileRedirect.account_id == hidden_from_planner(account_id), ProfileRedirect.survivor_id.in_(profile_ids)
        )
    )
    return found.all()


async def _survivors(session: AsyncSession, account_id: UUID, profile_ids: Iterable[UUID]) -> Mapping[UUID, UUID]:
    found = await session.execute(
        select(ProfileRedirect.profile_id, ProfileRedirect.survivor_id).where(
            ProfileRedirect.account_id == hidden_from_planner(account_id), ProfileRedirect.profile_id.in_(profile_ids)
        )
    )
    return {loser: survivor for loser, survivor in found}  # noqa: C416 -- rows are no pairs for dict()
