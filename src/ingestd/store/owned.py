"""The questions that resources ask: for one row of an account, and whether it may have another."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain.errors import Conflict, NotFound
from ingestd.store import accounts
from ingestd.store.base import Base

R = TypeVar("R", bound=Base)


async def get_owned(
    session: AsyncSession,
    table: type[R],
    account_id: UUID,
    row_id: UUID,
    *where: ColumnElement[bool],
    called: str,
    lock: bool = False,
) -> R:
    """The row of the account, held by this transaction if `lock`, or NotFound; `called` is what people call it.

    A row that is held is as it is now, though it was read before in this transaction; changes of it are flushed first.
    One statement whether the row is another account's or nobody's: neither costs more than the other (T50).
    """
    columns = table.__table__.c
    statement = select(table).where(columns.account_id == account_id, columns.id == row_id, *where)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    found: R | None = await session.scalar(statement)
    if found is None:
        raise NotFound(f"There is no such {called}.")
    return found


async def check_room(session: AsyncSession, table: type[Base], account_id: UUID, most: int, *, called: str) -> None:
    """Raise Conflict "too_many_…" where the account has `most` rows already; `called` is what people call several.

    The account's row is held, so that of several made at once none slips through.
    """
    await accounts.lock(session, account_id)
    number = select(func.count()).where(table.__table__.c.account_id == account_id)
    if (await session.scalar(number) or 0) >= most:
        raise Conflict(f"The account has {most} {called} already.", code=f"too_many_{called}")
