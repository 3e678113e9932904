"""Data sources, their mappings in versions, and who is in them (S56, S66, D16)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, ForeignKey, UniqueConstraint, Uuid, delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.domain.data_source import Pair
from ingestd.store.base import Base, Key
from ingestd.store.owned import get_owned
from ingestd.store.page import Cut, Sorts


class DataSource(Base):
    """Where tables of people come from; the documents also say "category" (D33).

    `mapping_version` is the present version of its mapping, null before the first; `webhook_ids` are told of its files
    (S136).
    """

    __tablename__ = "data_sources"
    __table_args__ = (UniqueConstraint("account_id", "name"),)

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]
    description: Mapped[str]
    mapping_version: Mapped[int | None]
    webhook_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), server_default="{}")
    created_at: Mapped[datetime]


class Mapping(Base):
    """One version of a source's mapping, never changed: `columns` [{"column": header, "attribute": name}]."""

    __tablename__ = "mappings"

    data_source_id: Mapped[UUID] = mapped_column(ForeignKey("data_sources.id"), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    columns: Mapped[list[Any]]
    created_by: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

    @property
    def pairs(self) -> list[Pair]:
        """What is mapped to what."""
        return [Pair(each["column"], each["attribute"]) for each in self.columns]


class DataSourceMember(Base):
    """Somebody in a data source.

    One index has to do, since a file brings so many: somebody's memberships are looked up source by source.
    """

    __tablename__ = "data_source_members"

    account_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    data_source_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    profile_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)


SORTS: Final[Sorts] = {"name": (DataSource.name, DataSource.id), "created_at": (DataSource.id,)}
MEMBERS: Final[Sorts] = {"profile": (DataSourceMember.profile_id,)}


async def page(session: AsyncSession, account_id: UUID, cut: Cut, *, q: str | None = None) -> Sequence[DataSource]:
    """Data sources of the account, those with a text in their name."""
    statement = select(DataSource).where(DataSource.account_id == account_id)
    if q is not None:
        statement = statement.where(DataSource.name.icontains(q, autoescape=True))
    found = await session.scalars(cut.of(statement))
    return found.all()


async def get(session: AsyncSession, account_id: UUID, source_id: UUID, *, lock: bool = False) -> DataSource:
    """A data source of the account, if wanted held by this transaction, or NotFound."""
    return await get_owned(session, DataSource, account_id, source_id, called="data source", lock=lock)


async def find(session: AsyncSession, account_id: UUID, name: str) -> DataSource | None:
    """The data source of a name, or None."""
    found: DataSource | None = await session.scalar(
        select(DataSource).where(DataSource.account_id == account_id, DataSource.name == name)
    )
    return found


async def mapping(session: AsyncSession, source: DataSource) -> Mapping | None:
    """The present mapping of a data source, or None before the first."""
    if source.mapping_version is None:
        return None
    return await session.get(Mapping, (source.id, source.mapping_version))


async def mappings(session: AsyncSession, account_id: UUID) -> Sequence[Mapping]:
    """The present mappings of the account's data sources, the newest first."""
    present = (Mapping.data_source_id == DataSource.id) & (Mapping.version == DataSource.mapping_version)
    found = await session.scalars(
        select(Mapping)
        .join(DataSource, present)
        .where(DataSource.account_id == account_id)
        .order_by(Mapping.created_at.desc(), Mapping.data_source_id)
    )
    return found.all()


async def mapped(session: AsyncSession, account_id: UUID, attribute: str) -> bool:
    """Whether any version of any mapping of the account names an attribute."""
    found = await session.scalar(
        select(Mapping.version)
        .join(DataSource, DataSource.id == Mapping.data_source_id)
        .where(DataSource.account_id == account_id, Mapping.columns.contains([{"attribute": attribute}]))
        .limit(1)
    )
    return found is not None


async def names(session: AsyncSession, source_ids: Collection[UUID]) -> dict[UUID, str]:
    """The names of some data sources by their ids."""
    found = await session.execute(select(DataSource.id, DataSource.name).where(DataSource.id.in_(source_ids)))
    return {id_: name for id_, name in found}  # noqa: C416 -- rows are no pairs for dict()


async def members(session: AsyncSession, source: DataSource, cut: Cut) -> Sequence[DataSourceMember]:
    """Who is in a data source."""
    of_source = (DataSourceMember.account_id == source.account_id, DataSourceMember.data_source_id == source.id)
    found = await session.scalars(cut.of(select(DataSourceMember).where(*of_source)))
    return found.all()


async def remove(session: AsyncSession, source: DataSource) -> bool:
    """Remove a data source with its mappings; False where an ingestion was made for it, which refers to it."""
    used = await session.scalar(
        text("SELECT EXISTS (SELECT FROM ingestions WHERE data_source_id = :id)"), {"id": source.id}
    )
    if used:
        return False
    await session.execute(delete(Mapping).where(Mapping.data_source_id == source.id))
    await session.execute(text("DELETE FROM schedules WHERE owner_id = :id"), {"id": source.id})
    await session.delete(source)
    return True
