"""Threads that make the next items while the last one is used, so that both cores have work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")
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


def side_by_side(function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """Yield what `function` makes of each item, in their order; it is called for two of them at the same time."""
    with ThreadPoolExecutor(2, "side-by-side") as pool:
        coming: deque[Future[R]] = deque()
        for item in items:
            coming.append(pool.submit(function, item))
            del item
            if len(coming) > 1:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
