"""Work in processes of their own, which begin warm: the same in several, let go at once, or one thing in one."""

from __future__ import annotations

import faulthandler
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from threading import BrokenBarrierError
from typing import Any

_PATIENCE = 120  # seconds for a round: a process that is stuck says where, and ends the race
_ADAPTERS = (
    "noise_opendp",
    "reading.engine_duckdb",
    "storage.file_inventory",
    "storage.inbox_files",
    "storage.sketch_files",
    "storage.state_files",
)
WARM = [
    *(f"resources.{name}" for name in _ADAPTERS),  # a store imports these at their first use, which nobody waits for
    "dpdau_tests.conftest",
    "dpdau_tests.support.killing_releases",
]  # imported once, by a server that has opened nothing

_start: Any = None  # in each process: where it waits for the others


def race(work: Callable[..., Any], arguments: Sequence[tuple]) -> list[Any]:
    """What each process returned, in order; `work` is a function of a module, called once everyone is there."""
    (results,) = race_in_rounds(_once, [(work, given) for given in arguments], 1)
    return results


def race_in_rounds(work: Callable[..., Any], arguments: Sequence[tuple], rounds: int) -> list[list[Any]]:
    """Race once each round, whose number is the first argument of `work`; the processes stay the same."""
    context = _context()
    start = context.Barrier(len(arguments))
    with ProcessPoolExecutor(len(arguments), context, initializer=_meet_at, initargs=(start,)) as pool:
        running = [pool.submit(_take_part, work, given, rounds) for given in arguments]
        failures = [failure for worker in running if (failure := worker.exception())]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, BrokenBarrierError)):
            raise failure
        return [list(results) for results in zip(*(worker.result() for worker in running), strict=True)]


def apart(work: Callable[..., Any], *given: Any) -> Any:
    """What a function of a module returns in a process of its own, which has opened nothing."""
    with ProcessPoolExecutor(1, _context()) as pool:
        return pool.submit(work, *given).result()


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(WARM)
    return context


def _meet_at(start: Any) -> None:
    global _start
    _start = start


def _take_part(work: Callable[..., Any], given: tuple, rounds: int) -> list[Any]:
    try:
        return [_at_once(number, work, given) for number in range(rounds)]
    except BaseException:
        _start.abort()  # or the others would wait for this one
        raise
    finally:
        faulthandler.cancel_dump_traceback_later()


def _at_once(number: int, work: Callable[..., Any], given: tuple) -> Any:
    faulthandler.dump_traceback_later(_PATIENCE, exit=True)
    _start.wait()
    return work(number, *given)


def _once(_number: int, work: Callable[..., Any], given: tuple) -> Any:
    return work(*given)
