"""The yardstick: PostgreSQL's own COPY of a file into a table of nothing but text, unlogged, without any key."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

TIMES: Final = 3


def raw_copy(url: str, path: Path, *, delimiter: str = ",") -> float:
    """Let the embedded server at `url` read the file itself, three times; gives the seconds of the fastest time.

    The server's user must be able to read the file. The table is new each time and gone afterwards.
    """
    with path.open(newline="") as file:
        header = next(csv.reader(file, delimiter=delimiter))
    table = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in header)
    statement = sql.SQL("COPY raw_copy FROM {} (FORMAT csv, HEADER true, DELIMITER {})").format(str(path), delimiter)
    seconds = []
    with psycopg.connect(make_conninfo(url, user="postgres"), autocommit=True) as connection:
        for _ in range(TIMES):
            connection.execute(sql.SQL("CREATE UNLOGGED TABLE raw_copy ({})").format(table))
            connection.execute("CHECKPOINT")
            began = time.perf_counter()
            connection.execute(statement)
            seconds.append(time.perf_counter() - began)
            connection.execute("DROP TABLE raw_copy")
        connection.execute("CHECKPOINT")
    return min(seconds)
