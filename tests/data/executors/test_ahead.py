"""A thread that makes items ahead: the same ones in order, errors where they belong, a limit, no thread afterwards."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

import pytest

from raycls.data.executors.ahead import Ahead

_SECONDS = 10.0


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "raycls-read-ahead"]


@pytest.fixture(autouse=True)
def _none_stays() -> Iterator[None]:
    yield
    assert not _threads()


def _until(true: Callable[[], bool]) -> bool:
    return any(true() or threading.Event().wait(0.005) for _ in range(int(_SECONDS / 0.005)))


def test_every_item_in_order_and_then_the_end() -> None:
    ahead = Ahead(lambda item: item * item, iter(range(50)), 3)
    assert not _threads(), "it starts with the first item that is asked for"
    assert list(ahead) == [item * item for item in range(50)]
    assert not _threads()
    assert next(ahead, None) is None


@pytest.mark.parametrize("most", [1, 4])
def test_no_more_are_made_than_may_wait(most: int) -> None:
    made: list[int] = []
    ahead = Ahead(lambda item: made.append(item) or item, itertools.count(), most)
    for taken in range(3):
        assert next(ahead) == taken
        assert _until(lambda taken=taken: len(made) == taken + 1 + most)
        threading.Event().wait(0.02)
        assert len(made) == taken + 1 + most
    ahead.close()
    assert next(ahead, None) is None


def test_they_are_made_while_others_are_dealt_with() -> None:
    second = threading.Event()
    ahead = Ahead(lambda item: (item == 1 and second.set()) or item, iter(range(3)), 2)
    assert next(ahead) == 0
    assert second.wait(_SECONDS), "the second one is made before it is asked for"
    ahead.close()


def test_an_error_is_raised_where_its_item_is_asked_for() -> None:
    def make(item: int) -> int:
        if item == 2:
            raise OSError("gone")
        return item

    ahead = Ahead(make, itertools.count(), 5)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(ahead)
    assert next(ahead, None) is None


def test_a_stop_iteration_of_the_maker_is_an_error_and_not_the_end() -> None:
    def make(item: int) -> int:
        return next(iter([])) if item else item

    ahead = Ahead(make, itertools.count(), 2)
    assert next(ahead) == 0
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(ahead)


def test_close_lets_the_item_under_way_end_and_may_come_first_or_twice() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def make(item: int) -> int:
        if item:
            begun.set()
            assert go_on.wait(_SECONDS)
            ended.set()
        return item

    ahead = Ahead(make, itertools.count(), 2)
    next(ahead)
    assert begun.wait(_SECONDS)
    threading.Timer(0.05, go_on.set).start()
    ahead.close()
    assert ended.is_set()
    ahead.close()
    unused = Ahead(make, itertools.count(), 2)
    unused.close()
    assert next(unused, None) is None
