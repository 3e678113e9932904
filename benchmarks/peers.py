"""Other ways to bring the rows of a file into a PostgreSQL table by a key: `python -m benchmarks.peers`.

They need the extra `bench` (`pip install -e '.[bench]'`). A Singer target (`target-postgres`, installed in an
environment of its own with `pipx install meltanolabs-target-postgres`) and `pgloader` (Debian's package) take part
where they are on the path. Each gets the file without its bad rows, on the server of a service that loaded the same
people right before. None of them checks, reports, merges lists or keeps where a value came from: what they are
measured at is less than what the service does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
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
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.dialects.postgresql import insert

from benchmarks import generate, loads
from benchmarks.__main__ import Folder, Json, Mb, console, shown, write
from benchmarks.generate import Generated
from benchmarks.machine import Measured, circumstances
from benchmarks.raw_copy import raw_copy
from benchmarks.service import serving, warm_up, workshop

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
            warm_up(service.url, mb)
            ours = loads.load(service, "profiles", made, "first", 1)
            yield _peer(service.url, made, "ingestd", ours.seconds, ours.raw_copy_seconds, ours.seconds)
            again = raw_copy(service.url, made.clean)
            with psycopg.connect(make_conninfo(service.url, user="postgres"), autocommit=True) as connection:
                connection.execute("CREATE DATABASE peers")
            for name, work in _ways():
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
    credentials = _sqlalchemy_url(conninfo_to_dict(url))
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


def _sqlalchemy_url(parts: dict[str, Any]) -> str:
    return f"postgresql://postgres:{parts['password']}@localhost/peers?host={parts['host']}"


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


def _singer(url: str, path: Path, folder: Path) -> None:
    rows = _rows(path)
    parts = conninfo_to_dict(url)
    configuration = folder / "target.json"
    configuration.write_text(
        json.dumps(
            {
                "sqlalchemy_url": _sqlalchemy_url(parts),
                "default_target_schema": "singer",
                "add_record_metadata": False,
                "activate_version": False,
            }
        )
    )
    schema = {"properties": {name: {"type": ["null", "string"]} for name in rows.columns}}
    with subprocess.Popen(
        ["target-postgres", "--config", str(configuration)],
        env=os.environ | {"TARGET_POSTGRES_LOGLEVEL": "WARNING"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as target:
        assert target.stdin is not None  # a pipe was asked for
        first = {"type": "SCHEMA", "stream": "peer", "schema": schema, "key_properties": [KEY]}
        target.stdin.write(json.dumps(first).encode() + b"\n")
        for piece in rows.iter_slices(CHUNK):
            row = pl.struct(pl.all()).struct.json_encode()
            record = pl.concat_str(pl.lit('{"type":"RECORD","stream":"peer","record":'), row, pl.lit("}"))
            target.stdin.write("\n".join(piece.select(record).to_series()).encode() + b"\n")
    if target.returncode:
        raise RuntimeError("The Singer target failed.")


def _pgloader(url: str, path: Path, folder: Path) -> None:
    names = _rows(path).columns
    with psycopg.connect(url, autocommit=True) as connection:
        columns = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in names)
        connection.execute(sql.SQL("CREATE TABLE peer ({})").format(columns))
    parts = conninfo_to_dict(url)
    command = folder / "peer.load"
    command.write_text(
        f"LOAD CSV FROM '{path}' INTO postgresql://postgres@unix:{parts['host']}:{parts.get('port', 5432)}/peers"
        " TARGET TABLE public.peer"
        " WITH skip header = 1, fields optionally enclosed by '\"', fields escaped by double-quote,"
        " fields terminated by ',';\n"
    )
    environment = os.environ | {"PGPASSWORD": str(parts.get("password", ""))}
    subprocess.run(["pgloader", str(command)], env=environment, check=True, stdout=subprocess.DEVNULL)


PROGRAMS: Final = {"Singer target-postgres, upsert": "target-postgres", "pgloader, append": "pgloader"}
WAYS: Final[dict[str, Callable[[str, Path, Path], Any]]] = {
    "dlt, Arrow, merge": _dlt,
    "SQLAlchemy Core, upsert": _upsert,
    "pandas to_sql, append": _pandas,
    "Singer target-postgres, upsert": _singer,
    "pgloader, append": _pgloader,
}


def _ways() -> Iterator[tuple[str, Callable[[str, Path, Path], Any]]]:
    """Those that can be measured here; of the others it is said what is missing."""
    for name, work in WAYS.items():
        if name in PROGRAMS and shutil.which(PROGRAMS[name]) is None:
            console.print(f"Left out: {name}, since {PROGRAMS[name]} is not on the path.")
        else:
            yield name, work


def main(mb: Mb = 20, out: Json = None, folder: Folder = None) -> None:
    """Load the same rows by the service and by others."""
    write(shown(measure(mb=mb, parent=folder), FIGURES), out)


if __name__ == "__main__":
    typer.run(main)
