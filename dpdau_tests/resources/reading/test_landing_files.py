"""Upstream's folder: which days have landed whole, and what lies there for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from dpdau_assets.core.errors import BadInput, BadSetting
from dpdau_assets.core.ports.store import Store
from resources.reading.landing_files import LandingFiles

DAY = date(2025, 1, 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / f"day={DAY}"
    place.mkdir()
    (place / "part.csv").write_text("user_id,op,day\n")
    (place / "_SUCCESS").touch()
    return place


def test_a_folder_is_a_day_once_its_success_file_is_there(folder: Path) -> None:
    landing = LandingFiles(folder.parent)
    assert landing.days().keys() == {DAY}
    assert [file.name for file in landing.files(DAY)] == ["part.csv"]
    (folder / "_SUCCESS").unlink()
    assert landing.days() == {} and landing.files(DAY) == []


@pytest.mark.parametrize("name", ["day=2025-1-10", "day=2025-02-30", "2025-01-11", "day=2025-01-11.tmp", "_SUCCESS"])
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
    (folder / "she@example.org.csv.zst").touch()


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
    assert [file.name for file in LandingFiles(folder.parent).files(DAY)] == ["part.csv"]


def test_a_file_that_comes_out_of_a_hidden_folder_is_a_change(folder: Path) -> None:
    landing = LandingFiles(folder.parent)
    (folder / "_tmp").mkdir()
    (folder / "_tmp" / "b.csv").write_text("user_id,op,day\n")
    before = landing.fingerprint(DAY)
    (folder / "_tmp" / "b.csv").rename(folder / "b.csv")
    assert landing.fingerprint(DAY) != before
    (folder / "part.md5").mkdir()
    (folder / "b.csv").rename(folder / "part.md5" / "b.csv")
    assert [file.name for file in landing.files(DAY)] == ["part.csv", "b.csv"]


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
