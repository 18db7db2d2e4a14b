"""Upstream's folder: which days have landed whole, and what lies there for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from dpdau_assets.core.errors import BadInput, BadSetting
from dpdau_assets.core.ports.store import Store
from resources.reading.event_files import EventFile
from resources.reading.landing_files import LandingFiles

DAY = date(2025, 1, 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / f"day={DAY}"
    place.mkdir()
    (place / "part.csv").write_text("user_id,op,day\n")
    (place / "_SUCCESS").touch()
    return place


def names(files: list[EventFile]) -> list[str]:
    return [Path(file.name).name for file in files]


def test_a_folder_is_a_day_once_its_success_file_is_there(folder: Path) -> None:
    landing = LandingFiles(folder.parent)
    assert landing.days().keys() == {DAY}
    assert names(landing.files(DAY)) == ["part.csv"]
    (folder / "_SUCCESS").unlink()
    assert landing.days() == {} and landing.files(DAY) == []


@pytest.mark.parametrize(
    "name", ["day=2025-1-10", "day=2025-02-30", "2025-01-11", "day=2025-01-11.tmp", "hour=2025-01-11", "_SUCCESS"]
)
def test_what_is_no_day_is_passed_over(folder: Path, name: str) -> None:
    other = folder.parent / name
    other.mkdir()
    (other / "_SUCCESS").touch()
    assert LandingFiles(folder.parent).days().keys() == {DAY}


def test_the_fingerprint_is_another_one_when_a_file_came_went_or_was_written_anew(folder: Path) -> None:
    landing, seen = LandingFiles(folder.parent), set()
    seen.add(landing.days()[DAY])
    assert landing.days()[DAY] in seen
    (folder / "part.csv").write_text("user_id,op,day\nx,+,2025-01-10\n")
    seen.add(landing.days()[DAY])
    (folder / "more.csv").write_text("user_id,op,day\n")
    seen.add(landing.days()[DAY])
    (folder / "part.csv").unlink()
    seen.add(landing.days()[DAY])
    assert len(seen) == 4


def test_a_finished_folder_with_nothing_in_it_has_no_files(folder: Path) -> None:
    (folder / "part.csv").unlink()
    landing = LandingFiles(folder.parent)
    assert landing.days().keys() == {DAY} and landing.files(DAY) == []


def link_to_nothing(folder: Path) -> None:
    (folder / "she@example.org.csv").symlink_to("nowhere")


def link_to_a_folder(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "a.csv").write_text("user_id,day\n")
    (folder / "she@example.org").symlink_to(folder.parent / "elsewhere")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "she@example.org.csv")


def another_ending(folder: Path) -> None:
    (folder / "she@example.org.csv.lz4").touch()


def another_ending_below(folder: Path) -> None:
    (folder / "hour=1").mkdir()
    (folder / "hour=1" / "she@example.org.avro").touch()


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(
    "lay", [link_to_nothing, link_to_a_folder, pipe, another_ending, another_ending_below], ids=lambda lay: lay.__name__
)
def test_a_finished_folder_in_which_something_is_not_read_is_refused(
    folder: Path, lay: Callable[[Path], None], alone: bool
) -> None:
    """Such a folder is neither a day on which nothing happened nor one of which half is enough."""
    lay(folder)
    if alone:
        (folder / "part.csv").unlink()
    with pytest.raises(BadInput, match=r"File [12] of [12] has an ending that is not read") as raised:
        LandingFiles(folder.parent).files(DAY)
    assert "she@example" not in str(raised.value)


def test_hidden_files_and_checksums_are_nothing_that_has_to_be_read(folder: Path) -> None:
    for name in (".part.csv.crc", "_committed_1", "part.csv.md5", "_temporary/part.avro"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert names(LandingFiles(folder.parent).files(DAY)) == ["part.csv"]


def test_a_file_that_comes_out_of_a_hidden_folder_is_a_change(folder: Path) -> None:
    landing = LandingFiles(folder.parent)
    (folder / "_tmp").mkdir()
    (folder / "_tmp" / "b.csv").write_text("user_id,op,day\n")
    before = landing.fingerprint(DAY)
    (folder / "_tmp" / "b.csv").rename(folder / "b.csv")
    assert landing.fingerprint(DAY) != before
    (folder / "part.md5").mkdir()
    (folder / "b.csv").rename(folder / "part.md5" / "b.csv")
    assert names(landing.files(DAY)) == ["part.csv", "b.csv"]


def test_whatever_files_are_called_and_whenever_they_go_the_days_are_told(folder: Path) -> None:
    (folder / os.fsdecode(b"m\xfcller.csv")).write_text("user_id,day\n")
    (folder / "gone.csv").symlink_to("nowhere")
    landing = LandingFiles(folder.parent)
    assert landing.days() == {DAY: landing.fingerprint(DAY)} and landing.fingerprint(date(2025, 1, 11)) is None


def test_without_a_landing_folder_nothing_lands() -> None:
    assert LandingFiles(None).days() == {}


def test_a_landing_folder_among_what_is_kept_is_refused(make_store: Callable[..., Store], tmp_path: Path) -> None:
    """Landed files have raw ids, which receipts do not look for."""
    inside = tmp_path / "store" / "landing"
    inside.mkdir(parents=True)
    with pytest.raises(BadSetting, match="is inside DATA_DIR"):
        make_store(landing_dir=inside)
    assert make_store("other", landing_dir=inside).events.landing.days() == {}


def test_a_landing_folder_that_is_none_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"LANDING_DIR=.*/nowhere: there is no such folder"):
        LandingFiles(tmp_path / "nowhere").days()


# Spark's layout: one marker for a whole partitioned write.

BEFORE, MARKED, AFTER = 1_700_000_000, 1_700_000_100, 1_700_000_200


def spark_write(root: Path, *folders: str, marked: int | None = MARKED) -> None:
    """Partitions as Spark lays them down, all of them before the marker at the root."""
    for name in folders:
        (root / name).mkdir(parents=True)
        for part in ("part-00000-7e57.c000.csv", ".part-00000-7e57.c000.csv.crc"):
            (root / name / part).write_text("user_id\nalice\n")
        set_times(root / name.split("/")[0], BEFORE)
    if marked is not None:
        mark(root, marked)


def set_times(folder: Path, second: int) -> None:
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (second, second))


def mark(root: Path, second: int) -> None:
    (root / "_SUCCESS").touch()
    os.utime(root / "_SUCCESS", (second, second))


def test_one_marker_at_the_root_makes_every_day_complete_that_was_there(tmp_path: Path) -> None:
    spark_write(tmp_path, "day=2025-01-10", "day=2025-01-11", "other=1")
    landing = LandingFiles(tmp_path)
    assert list(landing.days()) == [DAY, date(2025, 1, 11)] and landing.unmarked() == []
    assert names(landing.files(DAY)) == ["part-00000-7e57.c000.csv"]
    assert landing.fingerprint(DAY) == landing.days()[DAY]


def test_what_is_younger_than_the_marker_at_the_root_is_not_finished_until_it_is_written_anew(tmp_path: Path) -> None:
    spark_write(tmp_path, "day=2025-01-10", "day=2025-01-11/hour=1", "day=2025-01-12", "day=2025-01-13")
    os.utime(tmp_path / "day=2025-01-10" / "part-00000-7e57.c000.csv", (AFTER, AFTER))  # a file was written
    os.utime(tmp_path / "day=2025-01-11" / "hour=1", (AFTER, AFTER))  # one was moved into a folder below
    os.utime(tmp_path / "day=2025-01-12", (AFTER, AFTER))  # one was taken out
    landing = LandingFiles(tmp_path)
    assert list(landing.days()) == [date(2025, 1, 13)] and landing.fingerprint(DAY) is None
    assert landing.files(DAY) == [] and landing.unmarked() == [date(2025, 1, day) for day in (10, 11, 12)]
    same = landing.fingerprint(date(2025, 1, 13))
    mark(tmp_path, AFTER)
    assert len(landing.days()) == 4 and landing.unmarked() == []
    assert landing.fingerprint(date(2025, 1, 13)) == same


def test_without_a_marker_a_day_is_not_taken_and_told_to_have_none(tmp_path: Path) -> None:
    spark_write(tmp_path, "dt=2025-01-10", marked=None)
    (tmp_path / "dt=2025-01-11").mkdir()
    landing = LandingFiles(tmp_path)
    assert landing.days() == {} and landing.files(DAY) == [] and landing.unmarked() == [DAY]
    assert LandingFiles(None).unmarked() == []


def test_a_marker_at_the_root_that_is_a_folder_or_a_link_is_none(tmp_path: Path) -> None:
    spark_write(tmp_path, "day=2025-01-10", marked=None)
    (tmp_path / "_SUCCESS").symlink_to(tmp_path / "day=2025-01-10" / "part-00000-7e57.c000.csv")
    assert LandingFiles(tmp_path).days() == {}


@pytest.mark.parametrize("name", ["day=2025-01-10", "dt=2025-01-10", "event_date=20250110", "date=2025-01-10"])
def test_a_day_is_named_as_partitions_of_days_are(name: str, tmp_path: Path) -> None:
    spark_write(tmp_path, name)
    landing = LandingFiles(tmp_path)
    assert landing.days().keys() == {DAY} and landing.folder(DAY) == tmp_path / name
    [file] = landing.files(DAY)
    assert dict(file.folder_values) == dict([name.split("=")])


def test_one_day_by_two_names_is_refused_and_holds_up_no_other_day(tmp_path: Path) -> None:
    spark_write(tmp_path, "day=2025-01-10", "dt=2025-01-10", "dt=2025-01-11")
    landing = LandingFiles(tmp_path)
    assert list(landing.days()) == [DAY, date(2025, 1, 11)]
    with pytest.raises(BadInput, match="2 folders for this day: day=2025-01-10 and dt=2025-01-10"):
        landing.files(DAY)
    assert len(landing.files(date(2025, 1, 11))) == 1


def test_one_day_by_two_names_of_which_one_is_complete_is_refused_too(folder: Path) -> None:
    (folder.parent / "dt=20250110").mkdir()
    landing = LandingFiles(folder.parent)
    assert landing.days().keys() == {DAY} and landing.unmarked() == []
    with pytest.raises(BadInput, match="2 folders for this day"):
        landing.files(DAY)


def test_the_fingerprint_of_two_folders_is_another_one_than_that_of_the_one_that_is_left(folder: Path) -> None:
    other = folder.parent / "dt=2025-01-10"
    other.mkdir()
    (other / "more.csv").write_text("user_id,op,day\n")
    landing = LandingFiles(folder.parent)
    both = landing.fingerprint(DAY)
    (other / "more.csv").unlink()
    other.rmdir()
    assert landing.fingerprint(DAY) != both and names(landing.files(DAY)) == ["part.csv"]
