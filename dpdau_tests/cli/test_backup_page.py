"""Every command of docs/backup.md is run, in order, and does what the page says: its exit code, its answer, its words.

A section that has commands begins in the situation that `SCENES` names for it. In the page `# exit code N` says how a
command ends (0 otherwise), a block of JSON after it is its answer, and one of text is found among its words; "…" stands
for what is different each time.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.answers import mart_rows
from dpdau_tests.cli.conftest import SECRET, Answer, Dpdau, _in_this_process
from dpdau_tests.conftest import opened, prepare, put
from dpdau_tests.support.connections import closed_at_the_end
from dpdau_tests.support.prepared import Prepared
from dpdau_tests.support.project import PROJECT
from resources.published.mart_duckdb import MartFiles
from resources.storage.backup_files import back_up

PAGE = (PROJECT / "docs" / "backup.md").read_text(encoding="utf-8")
ANYTHING = "…"


# --- The page ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A line of the page that somebody types, and what the page says of it."""

    line: str
    code: int = 0
    answer: object = None
    words: tuple[str, ...] = ()


@dataclass
class Section:
    """The commands below one heading, in order."""

    heading: str
    commands: list[Command]


def sections(page: str) -> list[Section]:
    """The sections of a page that have commands. A block of JSON or text belongs to the command before it."""
    sections_there = [Section("", [])]
    for part in re.finditer(r"^#+ (?P<heading>[^\n]+)$|^```(?P<kind>\w*)\n(?P<block>.*?)^```$", page, re.M | re.S):
        if part["heading"]:
            sections_there.append(Section(part["heading"], []))
        elif part["kind"] == "sh":
            sections_there[-1].commands += map(command_of, part["block"].splitlines())
        else:
            sections_there[-1].commands[-1] = told_of(sections_there[-1].commands[-1], part["kind"], part["block"])
    return [section for section in sections_there if section.commands]


def command_of(line: str) -> Command:
    typed, _, comment = line.partition("  #")
    code = re.search(r"exit code (\d)", comment)
    return Command(typed.strip(), int(code[1]) if code else 0)


def told_of(command: Command, kind: str, block: str) -> Command:
    answer, words = command.answer, command.words
    if kind == "json":
        answer = json.loads(block)
    else:
        assert kind == "text", f"a block of {kind}: nobody knows what it says"
        words = (*words, *(piece for piece in " ".join(block.split()).split(ANYTHING) if piece.strip()))
    return Command(command.line, command.code, answer, words)


def is_as_told(told: object, given: object) -> bool:
    """Whether an answer has the keys and values of the page, but for those that are different each time."""
    if isinstance(told, dict) and isinstance(given, dict):
        return told.keys() == given.keys() and all(is_as_told(told[key], given[key]) for key in told)
    if isinstance(told, list) and isinstance(given, list):
        return len(told) == len(given) and all(map(is_as_told, told, given))
    return told in (ANYTHING, given)


# --- The stores of the page --------------------------------------------------------------------------------------

PEOPLE = 40
BACKED_UP = date(2025, 2, 1)
EPOCH_224_IS_BEGUN = date(2025, 2, 12)  # the windows of that epoch reach it


def is_published(first: date, last: date, store: Store) -> None:
    for day in days_between(first, last):
        publish("dau", day, store)
        if day >= store.settings.start_date + timedelta(days=29):
            publish("mau", day, store)


def events(store: Store, first: date, last: date) -> None:
    days = days_between(first, last)
    put(store, [(f"user {n}", day) for day in days for n in range(PEOPLE)])
    prepare(store, days)


def a_daily_store(folder: Path) -> None:
    """Begun on 1 January 2025, and backed up in the evening of 1 February, when 30 January had come out.

    On 2 February 31 January comes out, and the mart is saved.
    """
    store = opened(folder / "data", BACKED_UP, hash_salt_secret=SECRET)
    events(store, date(2025, 1, 1), date(2025, 1, 31))
    is_published(date(2025, 1, 1), date(2025, 1, 30), store)
    back_up(folder / "backups" / "2025-02-01", store)
    is_published(date(2025, 1, 31), date(2025, 1, 31), store)
    MartFiles(folder / "data" / "mart").replace(mart_rows(store.accountant))
    shutil.copytree(folder / "data" / "mart", folder / "backups" / "2025-02-02-mart")


def an_archive(folder: Path) -> None:
    """Begun on 1 September 2024, and backed up on 1 February 2025, when 30 September had come out."""
    first = date(2024, 9, 1)
    store = opened(folder / "data", BACKED_UP, hash_salt_secret=SECRET, start_date=first)
    events(store, first, date(2024, 9, 30))
    is_published(first, date(2024, 9, 30), store)
    back_up(folder / "backups" / "2025-02-01", store)


# --- What happened to them ---------------------------------------------------------------------------------------


def nothing_is_lost(folder: Path) -> None:
    """Nothing happens to the store, and its mart is not saved yet."""
    shutil.rmtree(folder / "backups" / "2025-02-02-mart")


def all_is_lost(folder: Path) -> None:
    """Everything goes but the backup and the saved mart, which lie elsewhere, and what is handed in again."""
    shutil.rmtree(folder / "data")
    (folder / "requests-since-2025-02-01.csv").write_text("user_id\nuser 3\n")
    are_at_hand(folder, BACKED_UP)
    shutil.copy(PROJECT / "dagster.yaml", folder)


def are_at_hand(folder: Path, day: date) -> None:
    """Files with the events of a day since the backup."""
    rows = [{"user_id": f"user {n}", "day": f"{day}"} for n in range(PEOPLE)]
    (folder / "events-since-2025-02-01").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "events-since-2025-02-01" / f"{day}.jsonl").write_text(text)


def all_is_lost_after_a_rotation(folder: Path) -> None:
    all_is_lost(folder)
    (folder / "old-secret").write_text(SECRET)


def all_is_lost_and_restored(folder: Path) -> None:
    """By the default, and open again."""
    all_is_lost(folder)
    dpdau = Dpdau(folder)
    with clock(AFTER):
        assert dpdau("restore", "--from", "backups/2025-02-01").code == 0
        assert dpdau("reopen", "--who", "A. Name", "--why", "no requests since").code == 0


def the_ledger_is_lost(folder: Path) -> None:
    for path in (folder / "data").glob("ledger.sqlite*"):
        path.unlink()


def the_ledger_is_lost_with_keys(folder: Path) -> None:
    """Since the backup a salt epoch was begun: some of its keys are folded, and a batch waits."""
    later = opened(folder / "data", EPOCH_224_IS_BEGUN, hash_salt_secret=SECRET)
    events(later, EPOCH_224_IS_BEGUN, EPOCH_224_IS_BEGUN)
    put(later, [("user 1", EPOCH_224_IS_BEGUN + timedelta(days=1))])
    are_at_hand(folder, EPOCH_224_IS_BEGUN)
    the_ledger_is_lost(folder)


@dataclass(frozen=True)
class Scene:
    """How things stand when a section's first command is typed, on which day, and in which environment."""

    store: Callable[[Path], None]
    happened: Callable[[Path], None]
    today: date
    environment: tuple[tuple[str, str], ...] = ()


AFTER = date(2025, 2, 3)
LATER = EPOCH_224_IS_BEGUN + timedelta(days=1)
ARCHIVE = (("START_DATE", "2024-09-01"),)
ROTATED = (("HASH_SALT_SECRET", "the secret of today, of some length"),)
SCENES = {
    "Make one": Scene(a_daily_store, nothing_is_lost, BACKED_UP + timedelta(days=1)),
    "After a loss": Scene(a_daily_store, all_is_lost, AFTER),
    "A backup that is older than the secret": Scene(a_daily_store, all_is_lost_after_a_rotation, AFTER, ROTATED),
    "Nothing is known": Scene(a_daily_store, all_is_lost, AFTER),
    "The mart was saved": Scene(a_daily_store, all_is_lost, AFTER),
    "It is known what came out last": Scene(a_daily_store, all_is_lost, AFTER),
    "Nothing came out since": Scene(a_daily_store, all_is_lost, AFTER),
    "A store that publishes the past": Scene(an_archive, all_is_lost, AFTER, ARCHIVE),
    "The wrong day, or none": Scene(an_archive, all_is_lost, AFTER, ARCHIVE),
    "Going on": Scene(a_daily_store, all_is_lost_and_restored, AFTER),
    "Only the ledger was lost": Scene(a_daily_store, the_ledger_is_lost, AFTER),
    "Lost epochs": Scene(a_daily_store, the_ledger_is_lost_with_keys, LATER),
    "Without these event files": Scene(a_daily_store, the_ledger_is_lost_with_keys, LATER),
}


ALSO_IN_MAKE_TEST = {
    "Make one",
    "Nothing is known",
    "It is known what came out last",
    "A store that publishes the past",
}
"""The others take longer, and are run in CI."""


def head_of_the_backup(folder: Path) -> str:
    return json.loads((folder / "backups" / "2025-02-01" / "manifest.json").read_text())["head"]


def waiting_batch(folder: Path) -> str:
    (batch,) = (folder / "data" / "inbox").glob("*.parquet")
    return batch.stem


PLACEHOLDERS: dict[str, Callable[[Path], str]] = {
    "/backups/": lambda folder: f"{folder}/backups/",
    "HEAD": head_of_the_backup,
    "BATCH": waiting_batch,
}
"""What the page writes for things that are called otherwise everywhere, and what they are here."""


# --- Running it --------------------------------------------------------------------------------------------------


def clock(today: date) -> AbstractContextManager[object]:
    """Set the clock of every store that is opened meanwhile."""
    return patch("resources.store.SystemClock.today", lambda _: today)


class Terminal:
    """Where the commands of one section are typed, one after the other."""

    def __init__(self, folder: Path, today: date, environment: dict[str, str]) -> None:
        self._dpdau = Dpdau(folder, **environment)
        self._today = today

    def type(self, command: Command) -> Answer:
        line = self._with_real_names(command.line)
        given, typed = self._given(shlex.split(line))
        if typed[0] == "dpdau":
            with clock(self._today):
                return self._dpdau(*typed[1:], **given)
        if typed[0] == "dagster":
            return self._dagster(typed, given)
        assert typed[0] in {"cp", "mkdir", "mv", "openssl", "rm"}, f"{typed[0]}: nobody knows how it is tried here"
        done = subprocess.run(
            ["bash", "-c", f"umask 077; {line}"],
            cwd=self._dpdau.folder,
            env=self._dpdau.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return Answer(done.returncode, None, done.stderr)

    def with_real_names(self, text: object) -> object:
        """What the page says, with the names that are real here."""
        return json.loads(self._with_real_names(json.dumps(text, ensure_ascii=False)))

    def _with_real_names(self, text: str) -> str:
        for name, real in PLACEHOLDERS.items():
            if re.search(rf"(?<![\w.]){name}(?!\w)" if name.isalpha() else re.escape(name), text):
                text = text.replace(name, real(self._dpdau.folder))
        return text

    def _given(self, words: list[str]) -> tuple[dict[str, str], list[str]]:
        """Variables that stand before a command, as the shell would set them, and the command."""
        given = {}
        while name := re.match(r"([A-Z_]+)=(.*)", words[0]):
            said = subprocess.run(
                ["bash", "-c", f'printf %s "{name[2]}"'],
                cwd=self._dpdau.folder,
                capture_output=True,
                text=True,
                check=True,
            )
            given[name[1]] = said.stdout
            words = words[1:]
        return given, words

    def _dagster(self, typed: list[str], given: dict[str, str]) -> Answer:
        """Dagster's own command, in this process for the same reason as ours."""
        from dagster._cli import main

        with patch("dpdau_tests.cli.conftest.main", main), patch.object(sys, "argv", typed), clock(self._today):
            done = _in_this_process(tuple(typed[1:]), "", self._dpdau.folder, {**self._dpdau.environment, **given})
        return Answer(done.code, None, done.stderr)


def is_run(section: Section, terminal: Terminal) -> Iterator[str]:
    """Type everything; what is not as the page says."""
    for command in section.commands:
        done = terminal.type(command)
        if done.code != command.code:
            yield f"{command.line}: exit code {done.code}, not {command.code}. {done.said[-400:]}"
        if command.answer is not None and not is_as_told(terminal.with_real_names(command.answer), done.json):
            yield f"{command.line}: answers {json.dumps(done.json)}"
        for words in command.words:
            if words.strip() not in done.said:
                yield f"{command.line}: does not say {words!r}, but {done.said}"


@pytest.mark.filterwarnings("ignore:.* is superseded")  # by a command of a package that is not needed otherwise
@pytest.mark.parametrize(
    "section",
    [
        pytest.param(
            section, id=section.heading, marks=[] if section.heading in ALSO_IN_MAKE_TEST else pytest.mark.slow
        )
        for section in sections(PAGE)
    ],
)
def test_the_commands_of_a_section_do_what_the_page_says(section: Section, prepared: Prepared, tmp_path: Path) -> None:
    assert [*is_run(section, begun(SCENES[section.heading], prepared, tmp_path))] == []


def begun(scene: Scene, prepared: Prepared, tmp_path: Path) -> Terminal:
    def fill(folder: Path) -> None:
        with closed_at_the_end():
            scene.store(folder)

    folder = prepared.copy(f"{__name__}.{scene.store.__name__}", fill, tmp_path / "here")
    scene.happened(folder)
    return Terminal(folder, scene.today, dict(scene.environment))


def test_every_scene_is_one_of_the_page() -> None:
    assert [section.heading for section in sections(PAGE)] == list(SCENES)


@pytest.mark.parametrize(
    ("says", "is_wrong"),
    [
        ("", None),
        ('```json\n{"complete": ["2025-01-01"]}\n```', None),
        ('```json\n{"complete": ["…"]}\n```', None),
        ('```json\n{"complete": ["2025-01-02"]}\n```', "answers"),
        ('```json\n{"complete": []}\n```', "answers"),
        ('```json\n{"completed": ["2025-01-01"]}\n```', "answers"),
        ('```json\n{"complete": ["2025-01-01"], "more": "…"}\n```', "answers"),
        ("```text\nwhat nobody … says\n```", "does not say"),
        ("```sh\ndpdau dau 2025-01-01\n```", "exit code 3, not 0"),
        ("```sh\ndpdau dau 2025-01-01   # exit code 3\n```", None),
        ("```sh\nfalse\n```", "nobody knows how it is tried here"),
    ],
)
def test_a_page_that_says_something_else_is_noticed(tmp_path: Path, says: str, is_wrong: str | None) -> None:
    (section,) = sections(f"# Here\n```sh\ndpdau complete 2025-01-01\n```\n{says}")
    try:
        problem = " ".join(is_run(section, Terminal(tmp_path, AFTER, {})))
    except AssertionError as error:
        problem = str(error)
    assert is_wrong in problem if is_wrong else problem == ""
