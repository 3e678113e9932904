"""Attributes of an account: what is known of its people, by name (S63)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, ForeignKey, SmallInteger, UniqueConstraint, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.domain.identity import FIRST_OWN_KIND
from ingestd.store.base import Base, Key
from ingestd.store.owned import get_owned
from ingestd.store.page import Cut, Sorts


class Attribute(Base):
    """An attribute; `kind` is set where its values identify people, and then stands for it in all hashes (D54).

    `segment_name` and `macro_name` are UPPER_SNAKE (S64), and set where it may be used there. `sealed_at` is when all
    values of an attribute that is marked `pii` were sealed, also those stored before (D13).
    """

    __tablename__ = "attributes"
    __table_args__ = (
        UniqueConstraint("account_id", "name"),
        UniqueConstraint("account_id", "segment_name"),
        UniqueConstraint("account_id", "macro_name"),
        UniqueConstraint("account_id", "kind"),
    )

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]
    display_name: Mapped[str]
    format: Mapped[str]
    kind: Mapped[int | None] = mapped_column(SmallInteger)
    pii: Mapped[bool]
    sealed_at: Mapped[datetime | None]
    use_in_segments: Mapped[bool]
    use_as_macro: Mapped[bool]
    segment_name: Mapped[str | None]
    macro_name: Mapped[str | None]
    created_at: Mapped[datetime]


SORTS: Final[Sorts] = {"name": (Attribute.name, Attribute.id), "created_at": (Attribute.id,)}
MACROS: Final[Sorts] = {"macro_name": (Attribute.macro_name, Attribute.id)}


async def page(
    session: AsyncSession, account_id: UUID, cut: Cut, *, macros: bool = False, in_segments: bool | None = None
) -> Sequence[Attribute]:
    """Attributes of the account; of them those that are macros, or that may or may not be used in segments."""
    statement = select(Attribute).where(Attribute.account_id == account_id)
    if macros:
        statement = statement.where(Attribute.use_as_macro)
    if in_segments is not None:
        statement = statement.where(Attribute.use_in_segments == in_segments)
    found = await session.scalars(cut.of(statement))
    return found.all()


async def all_of(session: AsyncSession, account_id: UUID) -> Sequence[Attribute]:
    """All attributes of the account."""
    found = await session.scalars(select(Attribute).where(Attribute.account_id == account_id))
    return found.all()


async def get(session: AsyncSession, account_id: UUID, attribute_id: UUID, *, lock: bool = False) -> Attribute:
    """An attribute of the account, if wanted held by this transaction, or NotFound."""
    return await get_owned(session, Attribute, account_id, attribute_id, called="attribute", lock=lock)


async def is_taken(session: AsyncSession, attribute: Attribute, field: str) -> bool:
    """Whether another attribute of the account has what this one is to have in a field."""
    column = Attribute.__table__.c[field]
    others = (Attribute.account_id == attribute.account_id, Attribute.id != attribute.id)
    same = select(Attribute.id).where(*others, column == getattr(attribute, field))
    return bool(await session.scalar(select(same.exists())))


async def next_kind(session: AsyncSession, account_id: UUID) -> int:
    """The kind of the account's next attribute that identifies people; the caller holds the account's row."""
    last = await session.scalar(select(func.max(Attribute.kind)).where(Attribute.account_id == account_id))
    return max(FIRST_OWN_KIND, (last or 0) + 1)


async def identifying(session: AsyncSession, account_id: UUID) -> dict[str, Attribute]:
    """The attributes of the account whose values identify people, by name."""
    wanted = (Attribute.account_id == account_id, Attribute.kind.is_not(None))
    return {attribute.name: attribute for attribute in await session.scalars(select(Attribute).where(*wanted))}


def personal(connection: Connection, account_id: UUID, *, unsealed: bool = False) -> dict[str, int | None]:
    """The attributes that are marked as personal, by name, with their kinds; or those that may be `unsealed` yet."""
    found = select(Attribute.name, Attribute.kind).where(*_personal(account_id))
    if unsealed:
        found = found.where(Attribute.sealed_at.is_(None))
    return {name: kind for name, kind in connection.execute(found)}  # noqa: C416 -- rows are no pairs for dict()


async def personal_names(session: AsyncSession, account_id: UUID) -> set[str]:
    """The names of the attributes that are marked as personal."""
    return set(await session.scalars(select(Attribute.name).where(*_personal(account_id))))


async def any_unsealed(session: AsyncSession, account_id: UUID) -> bool:
    """Whether values of an attribute that is marked as personal may be stored unsealed."""
    waiting = select(Attribute.id).where(*_personal(account_id), Attribute.sealed_at.is_(None))
    return bool(await session.scalar(select(waiting.exists())))


def set_sealed(connection: Connection, account_id: UUID, names: Collection[str], *, now: datetime) -> None:
    """Say that all values of these attributes are sealed."""
    waiting = (*_personal(account_id), Attribute.name.in_(names), Attribute.sealed_at.is_(None))
    connection.execute(update(Attribute).where(*waiting).values(sealed_at=now))


def _personal(account_id: UUID) -> tuple[ColumnElement[bool], ...]:
    return Attribute.account_id == account_id, Attribute.pii.is_(True)
