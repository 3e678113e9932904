"""Links: which identifier stood in a row with which primary. Resolving reads them; of some become aliases (D54).

They are written in ranges of the identifier's hash, as parts are in ranges of the primary's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import polars as pl

from ingestd.hashes import split
from ingestd.pipeline.parts import Folder, Stream, close_stream, open_stream
from ingestd.pipeline.shorten import MOST_CELLS, batches, ranges


def read_links(folder: Folder, name: str) -> Iterator[pl.DataFrame]:
    """Some links, "id", "kind" and "hash", all of an identifier in one frame; as a rule there are few enough for one.

    Frames follow one another as their hashes do.
    """
    return ranges(partial(batches, folder, name), "hash", pl.DataFrame.unique, MOST_CELLS)


class LinkWriter:
    """Writes one stream of links, as `read_links` gives them; where there are none there is no stream."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._stream: Stream | None = None

    def write(self, links: pl.DataFrame) -> None:
        """Write some links in the order of their hashes."""
        if links.is_empty():
            return
        table = split(links.sort("hash").select("id", "hash", "kind")).to_arrow()
        if self._stream is None:
            self._stream = open_stream(self._folder, self._name, table.schema)
        self._stream[1].write_table(table)

    def close(self) -> list[str]:
        """Finish the stream; gives its name, if there is one."""
        if self._stream is None:
            return []
        close_stream(self._stream)
        return [self._name]
