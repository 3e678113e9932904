"""Events of a part are appended, and their people made if nobody knows them, in one transaction (D54)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from psycopg import Connection, sql

from ingestd.hashes import to_bytes
from ingestd.store.load.binary import Constant, Field
from ingestd.store.load.profiles import Applied, Changes, apply_profiles
from ingestd.store.load.stage import Identifiers, Load, copy, cursor, erased

FIELDS: Final[dict[str, Field]] = {
    "event_id": "uuid",
    "profile_id": "uuid",
    "name": "text",
    "ts": "bigint",
    "properties": "json",
}


def apply_events(
    connection: Connection[Any],
    events: pl.DataFrame,
    changes: Changes,
    identifiers: Identifiers,
    *,
    columns: Sequence[str],
    load: Load,
) -> Applied:
    """Append a part's events in the caller's transaction; gives how many, and how many were skipped (T115).

    `events` is what `pipeline.fold.events` gives, `changes` folds the rows of their people, which have `columns`.
    """
    people = changes(events["id"].unique(maintain_order=True), None)
    digests = people["identifiers"].hash() | 1  # never 0, which stands for none
    who = people.select("id", "rows", digest=digests.reinterpret(signed=True))

    def folded(ids: pl.Series, stored: pl.DataFrame | None) -> pl.DataFrame:
        if stored is not None:
            return changes(ids, stored)
        return people if ids.len() == people.height else people.filter(pl.col("id").is_in(ids.implode()))

    of_people, _ = apply_profiles(connection, who, folded, identifiers, columns=columns, load=load)
    with cursor(connection) as cur:
        if of_people.erased:
            events = events.join(erased(cur, identifiers, load), on="id", how="anti", maintain_order="left")
        constants: dict[str, Constant] = {
            "account_id": load.account_id,
            "received_at": load.received_at,
            "origin": load.seq,
        }
        rows = events.rename({"id": "profile_id"}).with_columns(event_id=event_ids(load, events))
        copy(cur, sql.Identifier("events"), rows, FIELDS, constants)
    return Applied(created=events.height, erased=of_people.erased)


def event_ids(load: Load, events: pl.DataFrame) -> pl.Series:
    """The ids of events: 80 bits of the ingestion's id, 16 of the profile's and 32 of the row's number.

    So a repeat gives the same ids, and events that are sorted by person have rising ones: the indexes by id and by
    person are both written from left to right.
    """
    ids = np.empty((events.height, 16), np.uint8)
    ids[:, :10] = np.frombuffer(load.ingestion_id.bytes[:10], np.uint8)
    ids[:, 10:12] = to_bytes(events["id"])[:, :2]
    ids[:, 12:] = events["row_no"].to_numpy().astype(">u4").view(np.uint8).reshape(-1, 4)
    return pl.Series(ids, dtype=pl.Array(pl.UInt8, 16))
