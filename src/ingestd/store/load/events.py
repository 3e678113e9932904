"""Events of a part are appended, and their people made if nobody knows them, in one transaction (D54)."""

from __future__ import annotations

from typing import Any

import polars as pl
from psycopg import Connection, sql

from ingestd.store.load.profiles import Applied, Names, apply_profiles
from ingestd.store.load.stage import Load, copy, cursor, erased, escaped


def apply_events(
    connection: Connection[Any], events: pl.DataFrame, people: pl.DataFrame, identifiers: pl.DataFrame, *, load: Load
) -> Applied:
    """Append a part's events in the caller's transaction; gives how many, and how many were skipped (T115).

    `events` and `people` are what `pipeline.fold.fold_events` gives, `identifiers` what `pipeline.parts.identifiers`
    gives.
    """
    of_people = apply_profiles(connection, people, identifiers, names=Names(), load=load)
    with cursor(connection) as cur:
        if of_people.erased:
            events = events.join(erased(cur, identifiers, load), on="id", how="anti", maintain_order="left")
        rows = escaped(events, ["name", "properties"]).select(
            pl.lit(str(load.account_id)).alias("account_id"),
            pl.lit(load.received_at.isoformat()).alias("received_at"),
            event_ids(load, events["row_no"]),
            pl.col("id").alias("profile_id"),
            "name",
            "ts",
            "properties",
            pl.lit(load.seq).alias("origin"),
        )
        copy(cur, sql.Identifier("events"), rows)
    return Applied(created=events.height, erased=of_people.erased)


def event_ids(load: Load, row_no: pl.Series) -> pl.Series:
    """The ids of events: 80 bits of the ingestion's id, then the row's number as twelve decimal digits.

    So a repeat gives the same ids, and they rise with the rows: the key's index is written from left to right.
    """
    first = pl.lit(load.ingestion_id.hex[:20])
    return pl.select(pl.concat_str(first, row_no.cast(pl.String).str.zfill(12)).alias("event_id")).to_series()
