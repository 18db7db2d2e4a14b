"""Work on many files at once, where hashing, sorting and decoding let the cores share it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition, Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def work_ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results in order. Each core has one item in work or waiting to be taken, so memory is bounded by that."""
    cores = os.cpu_count() or 1
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(cores) as threads:
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) > cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def made_ahead(items: Iterator[Item], size: Callable[[Item], int], most: int) -> Generator[Item]:
    """The items in order, made by a thread of its own while the ones before them are used.

    What waits is at most `most` by its `size`, or one item. What `items` raises is raised here; who stops early stops
    the thread after the item that it is making.
    """
    waiting: deque[Item] = deque()
    changed, state = Condition(), _Ahead()

    def make() -> None:
        try:
            for item in items:
                with changed:
                    while waiting and state.size + size(item) > most and not state.is_over:
                        changed.wait()
                    if state.is_over:
                        return
                    waiting.append(item)
                    state.size += size(item)
                    changed.notify_all()
        except BaseException as error:
            state.failed = error
        finally:
            with changed:
                state.is_made = True
                changed.notify_all()

    maker = Thread(target=make, daemon=True)
    maker.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: waiting or state.is_made)
                if not waiting:
                    break
                item = waiting.popleft()
                state.size -= size(item)
                changed.notify_all()
            yield item
    finally:
        with changed:
            state.is_over = True
            changed.notify_all()
        maker.join()
    if state.failed is not None:
        raise state.failed


@dataclass
class _Ahead:
    """How far a thread is that works ahead, and whether anybody waits for it."""

    size: int = 0
    is_made: bool = False
    is_over: bool = False
    failed: BaseException | None = None
