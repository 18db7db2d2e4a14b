"""The lock of a data directory: one process holds it at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from resources.storage.file_lock import FileLock

_HELD_BY_ANOTHER = 7
_ASK = """
    import fcntl, sys
    from pathlib import Path
    from resources.storage.file_lock import FileLock

    real = fcntl.flock
    fcntl.flock = lambda file, how: real(file, how | fcntl.LOCK_NB)  # where it would wait, it says so
    try:
        with FileLock(Path(sys.argv[1])).held():
            pass
    except BlockingIOError:
        sys.exit(int(sys.argv[2]))
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
        assert not another_process_gets(tmp_path / "lock")
    assert another_process_gets(tmp_path / "lock")
