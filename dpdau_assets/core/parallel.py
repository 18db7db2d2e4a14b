"""Work on many files at once, where hashing, sorting and decoding let the cores share it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
