"""Other ways to bring the rows of a file into a PostgreSQL table by a key: `python -m benchmarks.peers`.

They need the extra `bench` (`pip install -e '.[bench]'`). Each gets the file without its bad rows, on the
server of a service that loaded the same people right before. None of them checks, reports, merges lists or keeps where
a value came from: what they are measured at is less than what the service does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dlt
import pandas as pd
import polars as pl
import psycopg
import sqlalchemy as sa
import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.dialects.postgresql import insert

from benchmarks import generate, loads
from benchmarks.__main__ import Folder, Json, Mb, shown, write
from benchmarks.generate import Generated
from benchmarks.machine import Measured, circumstances
from benchmarks.raw_copy import raw_copy
from benchmarks.service import serving, workshop

KEY: Final = "identity"
CHUNK: Final = 10_000  # rows
FIGURES: Final = ("mb", "seconds", "rows_per_s", "raw_copy_seconds", "ratio_raw_copy", "times_slower")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer(Measured):
    """One way, from the file to its rows in a table; `times_slower` is its time by the service's in the same run."""

    seconds: float
    rows_per_s: int
    raw_copy_seconds: float
    ratio_raw_copy: float
    times_slower: float


def measure(*, mb: float, parent: Path | None) -> Iterator[Peer]:
    """Load a first file by the service, then the good rows of the same by each peer, into an empty table each."""
    with workshop(parent) as folder:
        made = generate.profiles(folder / "first.csv", mb=mb)
        with serving(folder) as service:
            ours = loads.load(service, "profiles", made, "first", 1)
            yield _peer(service.url, made, "ingestd", ours.seconds, ours.raw_copy_seconds, ours.seconds)
            again = raw_copy(service.url, made.clean)
            with psycopg.connect(make_conninfo(service.url, user="postgres"), autocommit=True) as connection:
                connection.execute("CREATE DATABASE peers")
            for name, work in WAYS.items():
                url = make_conninfo(service.url, user="postgres", dbname="peers")
                began = time.perf_counter()
                work(url, made.clean, folder)
                seconds = time.perf_counter() - began
                _count(url, made)
                yield _peer(service.url, made, name, seconds, again, ours.seconds)


def _peer(url: str, made: Generated, name: str, seconds: float, raw_seconds: float, ours: float) -> Peer:
    return Peer(
        work="peers",
        variant=name,
        mb=round(made.data.stat().st_size / 1e6, 1),
        run=1,
        seconds=round(seconds, 3),
        rows_per_s=round(made.rows / seconds),
        raw_copy_seconds=round(raw_seconds, 4),
        ratio_raw_copy=round(raw_seconds / seconds, 4),
        times_slower=round(seconds / ours, 2),
        **circumstances(url),
    )


def _count(url: str, made: Generated) -> None:
    """See that all people have come, or all rows where a way only adds; then remove the table."""
    with psycopg.connect(url, autocommit=True) as connection:
        ((schema,),) = connection.execute(
            "SELECT schemaname FROM pg_tables WHERE tablename = 'peer' AND schemaname NOT LIKE '%_staging'"
        ).fetchall()
        ((rows,),) = connection.execute(f'SELECT count(*) FROM "{schema}".peer').fetchall()  # noqa: S608
        if rows < made.people:
            raise RuntimeError(f"{rows} rows have come, of {made.people} people.")
        connection.execute(f'DROP TABLE "{schema}".peer')


def _rows(path: Path) -> pl.DataFrame:
    """The whole file as text, with column names that need no quotes."""
    rows = pl.read_csv(path, infer_schema=False)
    return rows.rename({name: name.replace(".", "_").replace("-", "_").lower() for name in rows.columns})


def _dlt(url: str, path: Path, folder: Path) -> None:
    parts = conninfo_to_dict(url)
    credentials = f"postgresql://postgres:{parts['password']}@localhost/peers?host={parts['host']}"
    pipeline = dlt.pipeline(
        "peer",
        destination=dlt.destinations.postgres(credentials),
        dataset_name="dlt",
        pipelines_dir=str(folder / "dlt"),
    )
    rows = _rows(path)
    batches = (piece.to_arrow() for piece in rows.iter_slices(CHUNK * 10))
    pipeline.run(
        dlt.resource(batches, name="peer", write_disposition="merge", primary_key=KEY), loader_file_format="csv"
    )


def _engine(url: str) -> sa.Engine:
    return sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))


def _upsert(url: str, path: Path, _: Path) -> None:
    rows = _rows(path)
    columns = [sa.Column(name, sa.Text, primary_key=name == KEY) for name in rows.columns]
    table = sa.Table("peer", sa.MetaData(), *columns)
    statement = insert(table)
    others = {name: statement.excluded[name] for name in rows.columns if name != KEY}
    statement = statement.on_conflict_do_update(index_elements=[KEY], set_=others)
    with _engine(url).begin() as connection:
        table.create(connection)
        for piece in rows.iter_slices(CHUNK):
            connection.execute(statement, piece.to_dicts())


def _pandas(url: str, path: Path, _: Path) -> None:
    frame = pd.read_csv(path, dtype=str)
    frame.to_sql("peer", _engine(url), index=False, chunksize=CHUNK)


WAYS: Final[dict[str, Callable[[str, Path, Path], Any]]] = {
    "dlt, Arrow, merge": _dlt,
    "SQLAlchemy Core, upsert": _upsert,
    "pandas to_sql, append": _pandas,
}


def main(mb: Mb = 20, out: Json = None, folder: Folder = None) -> None:
    """Load the same rows by the service and by others."""
    write(shown(measure(mb=mb, parent=folder), FIGURES), out)


if __name__ == "__main__":
    typer.run(main)
