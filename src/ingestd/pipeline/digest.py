"""A digest of what a file's rows say of each person, by which the same rows are known when they come again (S97).

Nobody reads it but the service itself, and where another version of it makes other digests, nothing is known again and
everything is compared.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import polars as pl

MIX: Final = np.uint64(0x9E3779B97F4A7C15)


def digests(rows: pl.DataFrame) -> pl.DataFrame:
    """Who is in the rows of a part: "id", sorted, how many "rows" each has, and their "digest" (Int64, never 0).

    `rows` are what `fold` takes, in the same order. Where two digests of a person are equal, the rows have the same
    identifiers, preferences, attributes and operations, in the same order; when they came (`ts`) and where they stood
    is left out.
    """
    said = rows.select(pl.exclude("id", "row_no", "line_no", "ts", "n"))
    names = hashlib.blake2b("\0".join(said.columns).encode(), digest_size=8)
    hashes = said.hash_rows(seed=int.from_bytes(names.digest(), "big")).to_numpy()
    ids = rows["id"]
    starts = np.flatnonzero((ids != ids.shift()).fill_null(value=True).to_numpy())
    counts = np.diff(starts, append=len(hashes))
    nth = np.arange(len(hashes)) - np.repeat(starts, counts)
    placed = pl.Series(hashes ^ (nth.astype(np.uint64) * MIX)).hash().to_numpy()
    digest = np.add.reduceat(placed, starts) | np.uint64(1)
    stands_for = rows["n"].fill_null(1).cast(pl.Int64).to_numpy() if "n" in rows.columns else None
    return pl.DataFrame(
        {
            "id": ids.gather(starts),
            "rows": counts if stands_for is None else np.add.reduceat(stands_for, starts),
            "digest": digest.view(np.int64),
        }
    )
