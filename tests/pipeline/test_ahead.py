"""Items made ahead of those who take them, and two at a time."""

import threading
import weakref
from collections.abc import Iterator

import pytest

from ingestd.pipeline.ahead import ahead, side_by_side


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


def test_two_are_made_at_the_same_time_and_come_in_their_order() -> None:
    pair = threading.Barrier(2, timeout=30)

    def make(number: int) -> int:
        pair.wait()
        return number * number

    assert list(side_by_side(make, range(6))) == [0, 1, 4, 9, 16, 25]


def test_a_failure_of_one_of_two_comes_where_its_item_would_have_come() -> None:
    coming = side_by_side(lambda number: 6 // number, [3, 2, 0, 1])
    assert [next(coming), next(coming)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(coming)


def test_of_two_that_are_made_nothing_is_kept_once_they_were_taken() -> None:
    items = side_by_side(lambda _: Item(), range(3))
    taken = weakref.ref(next(items))
    assert len(list(items)) == 2
    assert taken() is None
