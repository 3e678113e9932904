"""What all tables share: the metadata with its naming convention, the column types, and how an account is named."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, MetaData, ScalarSelect, Text, Uuid, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

Key = Annotated[UUID, mapped_column(Uuid, primary_key=True)]


class Base(DeclarativeBase):
    """The declarative base; every constraint gets a stable name."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 -- SQLAlchemy's own way to declare it
        str: Text(),
        int: BigInteger(),
        datetime: DateTime(timezone=True),
        UUID: Uuid(),
        dict[str, Any]: JSONB(none_as_null=True),
        list[Any]: JSONB(none_as_null=True),
    }


def hidden_from_planner(account_id: UUID) -> ScalarSelect[UUID]:
    """An account's id, which PostgreSQL does not see when it plans.

    It takes an account that came since it looked at a table for one of next to nobody, and reads all of its rows by
    whatever index has the account.
    """
    return select(literal(account_id, Uuid)).offset(0).scalar_subquery()
