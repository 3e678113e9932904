"""Pages by keyset: the rows after a row, in a fixed order, so that page 1,000 costs what page 1 does (T57)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import BigInteger, ColumnClause, Select, column, tuple_
from sqlalchemy.orm import InstrumentedAttribute

Column = InstrumentedAttribute[Any] | ColumnClause[Any]
Sorts = Mapping[str, tuple[Column, ...]]
"""The orders a list can be asked for: a name, and the columns it sorts by; the last of them is unique."""

S = TypeVar("S", bound=Select[*tuple[Any, ...]])


@dataclass(frozen=True, slots=True)
class Cut:
    """Which rows a page holds: in the order of `columns`, those after the row with the values `after`, at most `limit`.

    `after` holds plain JSON, as a cursor carries it.
    """

    columns: tuple[Column, ...]
    descending: bool
    after: tuple[Any, ...] | None
    limit: int

    def of(self, statement: S) -> S:
        """The statement, cut to this page and one row more, which tells that there is another page."""
        if self.after is not None:
            here = tuple_(*self.columns)
            there = tuple_(*map(_value, self.columns, self.after))
            statement = statement.where(here < there if self.descending else here > there)
        order = [column.desc() if self.descending else column.asc() for column in self.columns]
        return statement.order_by(*order).limit(self.limit + 1)

    def position(self, row: Any) -> list[Any]:
        """Where a row stands: what the cursor of the page after it carries."""
        return [_plain(getattr(row, column.key)) for column in self.columns]


def numbered(name: str) -> Sorts:
    """The order of records that lie in a file, by a number of theirs."""
    return {name: (column(name, BigInteger),)}


def _value(column: Column, plain: Any) -> Any:
    """A cursor's value as the column's type."""
    kind = column.type.python_type
    if kind is UUID:
        return UUID(plain)
    return datetime.fromisoformat(plain) if kind is datetime else plain


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
