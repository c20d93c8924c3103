"""Slices made ahead of the training by a thread of its own process: reading and decoding mostly run without the GIL.

The thread makes the slices that would be made without it, by the same function and in the same order, so they are the
same bytes. It must not draw from the generators of the process, which the steps seed: whoever starts one asks
`raycls.tasks.base.Task.separate` first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Self, TypeVar

__all__ = ["Ahead"]

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


class Ahead(Generic[_Item, _Made]):
    """An iterator over `make(item)` of each of `items`, of which up to `most` are made and not yet taken.

    What `make` raises is raised where its item would be taken. The thread starts with the first `next`, when what
    else reads the same data is done, and is gone once the last one was taken or after `close`.
    """

    def __init__(self, make: Callable[[_Item], _Made], items: Iterator[_Item], most: int) -> None:
        self._make, self._items, self._most = make, items, most
        self._ready: deque[_Made | _Raised] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._thread = threading.Thread(target=self._run, name="raycls-read-ahead", daemon=True)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Made:
        if self._thread.ident is None and not self._closed:
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended or self._closed)
            made = self._ready.popleft() if self._ready else None
            self._changed.notify_all()
        if made is None:
            self.close()
            raise StopIteration
        if isinstance(made, _Raised):
            self.close()
            raise made.error
        return made

    def close(self) -> None:
        """End the thread, once it has made the item that it is at; no more items come. May be called again."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._ready) < self._most or self._closed)
                if self._closed:
                    return
            try:
                item = next(self._items)
            except StopIteration:
                break
            made: _Made | _Raised
            try:
                made = self._make(item)
            except StopIteration as error:  # which would read as the end
                made = _Raised(RuntimeError(f"a slice could not be made: {error!r}"))
            except BaseException as error:  # noqa: BLE001 - raised again where the item is asked for
                made = _Raised(error)
            with self._changed:
                self._ready.append(made)
                self._changed.notify_all()
            if isinstance(made, _Raised):
                return
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error
