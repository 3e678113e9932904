"""Events of a part are appended, and their people made if nobody knows them, in one transaction (D54)."""

from __future__ import annotations

from typing import Any, Final

import polars as pl
from psycopg import Connection, sql

from ingestd.store.load.binary import Constant, Field
from ingestd.store.load.profiles import Applied, Names, apply_profiles
from ingestd.store.load.stage import Identifiers, Load, copy, cursor, erased

FIELDS: Final[dict[str, Field]] = {
    "event_id": "uuid",
    "profile_id": "uuid",
    "name": "text",
    "ts": "bigint",
    "properties": "jsonb",
}


def apply_events(
    connection: Connection[Any], events: pl.DataFrame, people: pl.DataFrame, identifiers: Identifiers, *, load: Load
) -> Applied:
    """Append a part's events in the caller's transaction; gives how many, and how many were skipped (T115).

    `events` and `people` are what `pipeline.fold.fold_events` gives.
    """
    of_people = apply_profiles(connection, people, identifiers, names=Names(), load=load)
    with cursor(connection) as cur:
        if of_people.erased:
            events = events.join(erased(cur, identifiers, load), on="id", how="anti", maintain_order="left")
        constants: dict[str, Constant] = {
            "account_id": load.account_id,
            "received_at": load.received_at,
            "origin": load.seq,
        }
        rows = events.rename({"id": "profile_id"}).with_columns(event_ids(load, events["row_no"]))
        copy(cur, sql.Identifier("events"), rows, FIELDS, constants)
    return Applied(created=events.height, erased=of_people.erased)


def event_ids(load: Load, row_no: pl.Series) -> pl.Series:
    """The ids of events: 80 bits of the ingestion's id, then the row's number as twelve decimal digits.

    So a repeat gives the same ids, and they rise with the rows: the key's index is written from left to right.
    """
    first = pl.lit(load.ingestion_id.hex[:20])
    return pl.select(pl.concat_str(first, row_no.cast(pl.String).str.zfill(12)).alias("event_id")).to_series()
