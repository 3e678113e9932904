"""One step ahead: a thread makes the next item while the last one is used, so that both cores have work."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """Yield what `items` yields, none of which is None; one item is made while the caller uses the one before.

    Nothing is kept of an item once it was yielded: several of these may stand in a row, and items be large.
    """
    with ThreadPoolExecutor(1, "ahead") as pool:
        coming = [pool.submit(next, items, None)]

        def take() -> T | None:
            item = coming.pop().result()
            if item is not None:
                coming.append(pool.submit(next, items, None))
            return item

        yield from iter(take, None)
