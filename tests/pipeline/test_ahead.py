"""Items made one step ahead."""

import threading
import weakref
from collections.abc import Iterator

import pytest

from ingestd.pipeline.ahead import ahead


class Item:
    """Something that takes memory."""


def test_all_items_come_in_their_order() -> None:
    assert list(ahead(iter(range(5)))) == [0, 1, 2, 3, 4]


def test_nothing_is_kept_of_an_item_that_was_taken() -> None:
    next_is_made = threading.Event()

    def make(number: int) -> Item:
        if number:
            next_is_made.set()
        return Item()

    items = ahead(map(make, range(3)))
    taken = weakref.ref(next(items))
    assert next_is_made.wait(timeout=30)
    assert taken() is None


def test_a_failure_comes_where_its_item_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="broken"):
        next(coming)
