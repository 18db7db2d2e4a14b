"""Where event files lie: folders, patterns, and storages that fsspec reads, by the service's own credentials."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.events import Limits
from dpdau_tests.support.s3_server import KEY, SECRET, credentials, nobody_let_in, put_folder, require_s3, s3_server
from resources.reading.engine_duckdb import DuckDBEngine
from resources.reading.event_files import FileOptions, Locations, event_files, offered

FILES = (
    "ev/day=2025-02-01/a.csv",
    "ev/day=2025-02-01/b.json.gz",
    "ev/day=2025-02-02/hour=1/c.csv",
    "ev/p.parquet",
    "ev/star*[1].csv",
)
PASSED_OVER = ("ev/_temporary/x.csv", "ev/.hidden.csv", "ev/day=2025-02-01/.part.crc", "ev/a.csv.md5", "ev/_SUCCESS")


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which FILES are, and what is passed over."""
    root = tmp_path_factory.mktemp("laid")
    for name in (*FILES, *PASSED_OVER, "ev/README.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("user_id\nalice\n")
    (root / FILES[1]).write_bytes(gzip.compress(b'{"user_id": "bob"}\n'))
    pq.write_table(pa.table({"user_id": ["carol", "dave"]}), root / FILES[3])
    return root


def names(root: str, locations: Locations, options: FileOptions | None = None) -> list[str]:
    return [file.name.removeprefix(f"{root}/") for file in event_files(locations, options)]


PATTERNS = (
    ("ev", FILES),
    ("ev/", FILES),
    ("ev/p.parquet", FILES[3:4]),
    ("ev/star*[1].csv", FILES[4:]),  # there is such a name: it is no pattern
    ("ev/day=*", FILES[:3]),
    ("ev/day=2025-02-0?/*.csv", FILES[:1]),
    ("ev/*.csv", FILES[4:]),
    ("ev/*[1].*", FILES[4:]),  # no brackets: they stand for themselves
    ("ev/**/*.csv", (FILES[0], FILES[2], FILES[4])),
    ("**/hour=*/c.csv", FILES[2:3]),
    ("ev/day=*/**", FILES[:3]),
    ("ev/_temp*/*", ("ev/_temporary/x.csv",)),  # hidden names that the pattern says itself
)


@pytest.mark.parametrize(("location", "there"), PATTERNS)
def test_a_location_is_a_file_a_folder_or_a_pattern(location: str, there: Sequence[str], laid: Path) -> None:
    assert names(str(laid), f"{laid}/{location}") == list(there)


def test_what_is_in_a_folder_and_not_read_is_told(laid: Path) -> None:
    assert offered(laid / "ev").others == [f"{laid}/ev/README.md"]


def test_several_locations_are_read_together_each_file_once_and_in_order(
    laid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(laid)
    there = "ev/day=2025-02-01"
    locations = ["ev/p.parquet", "ev/../ev/*.parquet", f"{there}/a.csv", f"file://{laid}/{there}", Path(there)]
    assert sorted(names(str(laid), locations)) == [f"{there}/a.csv", f"{there}/b.json.gz", "ev/p.parquet"]


@pytest.mark.parametrize("name", ["none.csv", "ev/*.avro", "ev/none/**", "a.csv/b.csv", "x" * 300, "nul\0.csv"])
def test_a_location_at_which_nothing_is_is_refused_by_name(name: str, laid: Path) -> None:
    with pytest.raises(BadInput) as raised:
        event_files(laid / name)
    assert str(laid / name) in raised.value.reason and raised.value.remedy


def test_one_of_several_locations_without_event_files_is_refused(laid: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"{tmp_path} holds no event files"):
        event_files([laid, tmp_path])


def test_what_is_no_file_is_refused_where_it_is_named_and_told_in_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "gone.csv").symlink_to("nowhere")
    assert offered(tmp_path).others == [f"{tmp_path}/gone.csv", f"{tmp_path}/pipe.csv"]
    with pytest.raises(BadInput, match=r"pipe.csv is no file"):
        event_files(tmp_path / "pipe.csv")


def test_links_to_folders_are_followed_where_they_are_named_only(laid: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(laid / "ev")
    (tmp_path / "a.csv").touch()
    for location in (tmp_path, f"{tmp_path}/*", f"{tmp_path}/**", f"{tmp_path}/**/*.csv"):
        assert names(str(tmp_path), location) == ["a.csv"]
    with pytest.raises(BadInput, match="matches no file"):
        event_files(f"{tmp_path}/li*/*.csv")
    assert len(event_files(tmp_path / "link")) == len(event_files(f"{tmp_path}/link/**")) == len(FILES)


# URLs.

SECRETS = (
    f"s3://{KEY}:{SECRET}@events/ev",
    "s3://akia:slash/ed+secret@events/ev",
    "s3://akia:secret/ev",
    f"s3://events/ev?X-Amz-Signature={SECRET}",
    f"https://127.0.0.1/ev.csv?sig={SECRET}",
    f"https://127.0.0.1/ev.csv?a=b&access_token={SECRET}",
    f"https://someone:{SECRET}@127.0.0.1/ev.csv",
    f"simplecache::s3://{KEY}:{SECRET}@events/ev",
)


@pytest.mark.parametrize("location", SECRETS)
def test_a_url_with_a_password_or_a_key_is_refused_without_telling_it(location: str) -> None:
    with pytest.raises(BadInput) as raised:
        event_files(location)
    told = str(raised.value) + repr(raised.value.fields)
    assert not any(secret in told for secret in (KEY, SECRET, "akia", "slash", "secret/ev"))


@pytest.mark.parametrize("location", ["simplecache::s3://events/ev", "filecache://events/ev", "zip://a::file:///b.zip"])
def test_a_url_that_would_make_copies_on_this_machine_is_refused(location: str) -> None:
    with pytest.raises(BadInput, match="by way of another one"):
        event_files(location)


def test_storages_that_nothing_can_read_are_told_with_what_to_install() -> None:
    with pytest.raises(BadInput, match="nostorage:// is no kind of storage"):
        event_files("nostorage://events/ev")
    without = "import sys; sys.modules['s3fs'] = None\nfrom resources.reading.event_files import event_files\n"
    done = subprocess.run([sys.executable, "-c", f"{without}event_files('s3://events/ev')"], capture_output=True)
    assert b"pip install '.[s3]'" in done.stderr and b"not installed" in done.stderr


# A storage that speaks S3's protocol.


@pytest.fixture(scope="module")
def storage(laid: Path) -> Iterator[str]:
    """The address of a server that has what is laid out in the bucket `events`."""
    require_s3()
    with s3_server() as address, pytest.MonkeyPatch.context() as patch:
        for name, value in credentials(address).items():
            patch.setenv(name, value)
        put_folder(laid, "events")
        yield address


@pytest.mark.parametrize(("location", "there"), [PATTERNS[place] for place in (0, 3, 7, 8)])
def test_a_storage_is_looked_through_as_a_folder_is(location: str, there: Sequence[str], storage: str) -> None:
    assert names("s3://events", f"s3://events/{location}") == list(there)


def test_files_of_a_storage_are_read_as_those_of_a_folder_are(storage: str, laid: Path) -> None:
    found = event_files("s3://events")
    for file, here in zip(found, event_files(laid), strict=True):
        assert (file.size, file.format, file.compression) == (here.size, here.format, here.compression)
        assert file.local is None and not file.is_plain and KEY not in repr(file) and SECRET not in repr(file)
        seen = []
        with file.opened(seen.append) as there, here.opened() as same:
            assert there.read() == same.read() and seen[0].tell() == file.size
    assert dict(found[2].folder_values) == {"day": "2025-02-02", "hour": "1"}
    with found[3].stored() as stored:
        assert pq.read_table(stored)["user_id"].to_pylist() == ["carol", "dave"]


def test_a_partitioned_folder_of_a_storage_says_the_days_of_its_events(storage: str) -> None:
    limits = Limits(date(2025, 1, 1), date(2025, 3, 1), ZoneInfo("UTC"))
    with DuckDBEngine().scan(event_files("s3://events/ev/day=*"), limits) as scan:
        assert (scan.accepted, scan.days()) == (3, [date(2025, 2, 1), date(2025, 2, 2)])


@pytest.mark.parametrize("location", ["s3://nobucket/a.csv", "s3://events/none.csv", "s3://events/no*"])
def test_what_a_storage_does_not_have_is_refused_by_name(location: str, storage: str) -> None:
    with pytest.raises(BadInput) as raised:
        event_files(location)
    assert location in raised.value.reason


def test_a_key_that_is_wrong_or_missing_is_bad_input_and_is_not_told(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [file] = event_files("s3://events/ev/p.parquet")
    with nobody_let_in(storage):
        for location in ("s3://events/ev", "s3://events/ev/day=2025-02-01/a.csv"):
            with pytest.raises(BadInput, match="may not be read with the service's credentials") as raised:
                event_files(location)
            assert location in str(raised.value) and KEY not in str(raised.value) and SECRET not in str(raised.value)
        with pytest.raises(BadInput, match="may not be read"), file.stored() as stored:
            stored.read()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(BadInput, match="cannot be read: NoCredentialsError") as raised:
        event_files("s3://events/ev")
    assert SECRET not in str(raised.value)


def test_what_lies_in_a_storage_is_asked_anew_each_time_and_what_is_gone_by_then_is_bad_input(storage: str) -> None:
    import s3fs

    upstream = s3fs.S3FileSystem(skip_instance_cache=True)
    upstream.pipe_file("events/ev/hour=1/more.csv", b"user_id\n")
    [file] = event_files("s3://events/ev/hour=1")
    upstream.rm("events/ev/hour=1/more.csv")
    with pytest.raises(BadInput, match="hour=1 does not exist"):
        event_files("s3://events/ev/hour=1")
    with pytest.raises(BadInput, match=r"s3://events/ev/hour=1/more.csv does not exist"), file.opened() as opened:
        opened.read()
