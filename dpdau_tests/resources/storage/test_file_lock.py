"""The lock of a data directory: one thread of one process holds it at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from resources.storage.file_lock import FileLock

_HELD_BY_ANOTHER = 7
_ASK = """
    import sys, time
    from pathlib import Path
    from resources.storage.file_lock import FileLock

    time.sleep = lambda _: sys.exit(int(sys.argv[2]))  # where it would wait, it says so
    with FileLock(Path(sys.argv[1])).held():
        pass
"""


def another_process_gets(path: Path) -> bool:
    """Whether it gets the lock at once; else it would have to wait."""
    command = [sys.executable, "-c", textwrap.dedent(_ASK), str(path), str(_HELD_BY_ANOTHER)]
    code = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False).returncode
    assert code in (0, _HELD_BY_ANOTHER)
    return code == 0


def test_another_process_gets_the_lock_once_its_holder_has_let_go_and_not_before(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    with lock.held():
        with lock.held():  # the same thread may, and does not let go with the inner one
            pass
        with FileLock(tmp_path / "lock").held():  # also by another object
            pass
        assert not another_process_gets(tmp_path / "lock")
    assert another_process_gets(tmp_path / "lock")


def test_another_thread_waits_until_the_holder_has_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, steps, asked, real = FileLock(tmp_path / "lock"), [], threading.Event(), time.sleep

    def sleep(seconds: float) -> None:
        steps.append("waits")
        asked.set()
        real(seconds)

    def work() -> None:
        with lock.held():
            steps.append("has it")
        asked.set()

    monkeypatch.setattr(time, "sleep", sleep)
    thread = threading.Thread(target=work)
    with lock.held():
        thread.start()
        assert asked.wait(60)
        steps.append("let go")
    thread.join()
    assert steps[0] == "waits" and steps.index("let go") < steps.index("has it")


def test_a_fork_of_its_holder_does_not_hold_it(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    with lock.held():
        child = os.fork()
        if not child:
            time.sleep = lambda _: os._exit(_HELD_BY_ANOTHER)  # of the fork alone
            with lock.held():
                os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == _HELD_BY_ANOTHER
        assert not another_process_gets(tmp_path / "lock"), "the fork's end lets go of nothing"


def test_its_file_is_private_whatever_the_umask_and_stays(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with FileLock(tmp_path / "new" / "lock").held():
            pass
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new", tmp_path / "new" / "lock")]
    assert modes == [0o700, 0o600]
