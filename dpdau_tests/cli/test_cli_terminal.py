"""What people see on stderr: a bar on a terminal, and whole lines wherever else it goes."""

from __future__ import annotations

import io
import json
import re
import threading
from contextlib import redirect_stderr
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.cli.terminal import Lines, progress, tell
from dpdau_tests.cli.conftest import Dpdau

DEEP = Path("a folder whose name has spaces, and [brackets] that are no markup", *["and one more below it"] * 6)
ESCAPE = "\x1b"


class Clock:
    """Goes forward when it is told to."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def lines(clock: Clock) -> tuple[Lines, list[str]]:
    said: list[str] = []
    return Lines(said.append, clock), said


# --- Elsewhere than on a terminal ----------------------------------------------------------------------------------


def test_a_long_read_says_each_further_tenth_once_and_not_that_it_is_done() -> None:
    clock = Clock()
    shown, said = lines(clock)
    shown.stage("Reading 3 file(s).")
    for per_cent in range(101):
        clock.seconds += 1
        shown.share(per_cent / 100)
    assert said == ["Reading 3 file(s).", *(f"Reading 3 file(s): {10 * tenth} %" for tenth in range(1, 10))]


def test_a_short_read_says_nothing_but_what_it_is() -> None:
    shown, said = lines(Clock())
    shown.stage("Reading 1 file(s).")
    for per_cent in range(101):
        shown.share(per_cent / 100)
    assert said == ["Reading 1 file(s)."]


def test_steps_are_counted_with_the_last_one_of_them() -> None:
    clock = Clock()
    shown, said = lines(clock)
    shown.stage("Publishing.")
    for done in range(1, 31):
        clock.seconds += 5
        shown.advance(done, 30, f"day {done}")
    assert said[1] == "Publishing: 3 of 30, day 3" and said[-1] == "Publishing: 27 of 30, day 27" and len(said) == 10


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 3)), max_size=60))
def test_whatever_is_read_in_whatever_time_lines_lie_a_second_apart_and_their_tenths_grow(
    told: list[tuple[float, float]],
) -> None:
    clock = Clock()
    said: list[tuple[float, str]] = []
    shown = Lines(lambda text: said.append((clock.seconds, text)), clock)
    shown.stage("Reading.")
    for share, later in told:
        clock.seconds += later
        shown.share(share)
    assert all(second - first >= 1 for (first, _), (second, _) in pairwise(said))
    per_cent = [int(re.fullmatch(r"Reading: (\d+) %", text)[1]) for _, text in said[1:]]  # type: ignore[index]
    assert all(10 <= percentage < 100 for percentage in per_cent)
    assert [percentage // 10 for percentage in per_cent] == sorted({percentage // 10 for percentage in per_cent})


def test_threads_that_tell_at_once_say_a_tenth_once() -> None:
    clock = Clock()
    shown, said = lines(clock)
    clock.seconds = 5
    threads = [threading.Thread(target=shown.share, args=(0.4,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["Working: 40 %"]


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["here", "processes"])
def deep(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Dpdau, str]:
    """A store to be in a data directory with a long path, and that path; one bad row among events of a day."""
    dpdau = Dpdau(tmp_path, processes=request.param)
    data = dpdau.folder / DEEP
    dpdau.environment["DATA_DIR"] = str(data)
    rows = [{"user_id": f"user {n}", "day": "2025-01-01"} for n in range(200)] + [{"user_id": ""}]
    (dpdau.folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return dpdau, str(data)


def said_by(dpdau: Dpdau, *arguments: str) -> list[str]:
    """The lines on stderr, but for those with which long work says how far it is."""
    before = len(dpdau.printed)
    dpdau(*arguments)
    printed = dpdau.printed[before:]
    assert ESCAPE not in printed and "\r" not in printed
    return [line for line in printed.splitlines() if not re.match(r"[{\[]|(Publishing|Rebuilding): \d+ of ", line)]


def test_every_line_is_whole_and_no_other_is_there(deep: tuple[Dpdau, str]) -> None:
    dpdau, data = deep
    assert len(data) > 120 and " " in data
    taken = said_by(dpdau, "ingest", "--from", "events.jsonl")
    assert [line for line in taken if data in line and Path(line[line.index(data) :]).is_file()], taken
    (spelling,) = said_by(dpdau, "erase", "--user-id", "user 1")
    assert spelling.startswith("Ids are compared byte by byte: ") and spelling.endswith(".")
    assert said_by(dpdau, "ingest", "--from", f"{data}/none.csv")[0] == f"BadInput: {data}/none.csv does not exist."
    wrong_usage = said_by(dpdau, "rotate-salt", "--new-secret-from", f"{data}/none")
    assert [line for line in wrong_usage if f"'{data}/none': No such file or directory" in line], wrong_usage


@pytest.mark.slow
def test_lines_are_whole_while_dagster_works(deep: tuple[Dpdau, str]) -> None:
    dpdau, _ = deep
    said_by(dpdau, "ingest", "--from", "events.jsonl")
    assert said_by(dpdau, "run", "--from", "2025-01-01", "--to", "2025-01-01") == ["Publishing."]
    assert said_by(dpdau, "rebuild", "--from", "2025-01-01", "--to", "2025-01-01") == ["Rebuilding."]
    assert said_by(dpdau, "report") == []
    said_by(dpdau, "erase", "--user-id", "user 1")
    applied, rebuilding = said_by(dpdau, "flush-deletes")
    assert applied.startswith("All requests are applied.") and rebuilding == "Rebuilding."


# --- On a terminal -------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    return Terminal()


def test_people_see_a_bar_with_per_cent_and_with_steps_and_nothing_of_it_stays(terminal: Terminal) -> None:
    with redirect_stderr(terminal), progress() as shown:
        shown.stage("Reading [3] file(s).")
        shown.share(0.29)
        shown._bars.refresh()  # type: ignore[attr-defined]
        shown.advance(3, 12, "publish_dau 2025-01-03")
    drawn = terminal.getvalue()
    for text in ("Reading [3] file(s).", "29 %", "publish_dau 2025-01-03", "3/12"):
        assert text in drawn
    assert drawn.endswith(f"{ESCAPE}[2K")


def test_a_line_is_broken_by_the_terminal_alone_and_is_no_markup(terminal: Terminal) -> None:
    path = f"/{DEEP}/[bold]x[/bold].csv"
    with redirect_stderr(terminal):
        tell(f"Where and why: {path}")
    assert path in terminal.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with redirect_stderr(terminal), progress() as shown:
        shown.stage("Reading.")
    assert terminal.getvalue() == "Reading.\n"


def test_what_is_no_terminal_gets_no_colour_however_much_the_environment_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress() as shown:
        shown.stage("Reading.")
        tell("Done.", "bold")
    assert capsys.readouterr().err == "Reading.\nDone.\n"
