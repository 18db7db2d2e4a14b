"""One event file: what its name and its first bytes say, and what its bytes are as text."""

from __future__ import annotations

import bz2
import gzip
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core.errors import BadInput
from resources.reading.event_files import EventFile, FileOptions, event_file, event_files, offered
from resources.reading.file_bytes import as_utf8, unpacked

TEXT = "user_id,day\nmüller,2025-02-01\n"
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".gzip": gzip.compress,
    ".zst": lambda content: pa.Codec("zstd").compress(content).to_pybytes(),
    ".zstd": lambda content: pa.Codec("zstd").compress(content).to_pybytes(),
    ".bz2": bz2.compress,
}
PACKINGS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read(file: EventFile) -> bytes:
    with file.opened() as opened:
        return opened.read()


# What it is called.


@pytest.mark.parametrize(
    ("name", "format_", "delimiter"),
    [
        ("a.jsonl", "json", None),
        ("a.NDJSON", "json", None),
        ("a.b.json", "json", None),
        ("part-00000-7e57.c000.csv", "csv", None),
        ("a.tsv", "csv", "\t"),
        ("a.psv", "csv", "|"),
        ("part-0.snappy.parquet", "parquet", None),
        ("part-0.gz.parquet", "parquet", None),
        ("a.parq", "parquet", None),
    ],
)
@pytest.mark.parametrize("packing", PACK)
def test_the_endings_say_the_format_the_delimiter_and_the_packing(
    name: str, format_: str, delimiter: str | None, packing: str, tmp_path: Path
) -> None:
    path = write(tmp_path, name + packing.upper(), PACK[packing](TEXT.encode()))
    [file] = event_files(tmp_path)
    assert (file.name, str(file), file.local) == (str(path), str(path), path)
    assert (file.format, file.delimiter, file.size) == (format_, delimiter, path.stat().st_size)
    assert file.compression == file.named_compression == {".gzip": "gzip", ".zstd": "zstd", **PACKINGS}.get(packing)
    assert read(file) == TEXT.encode() and file.is_plain is (packing == "")


@pytest.mark.parametrize("name", ["a.avro", "a.txt", "part-00000", "000000000000", "a.csv.lz4", "a", "a.gz"])
def test_a_file_that_is_named_and_has_no_known_ending_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, b"")
    with pytest.raises(BadInput, match=rf"{name} has no known ending\. .*\.parquet.*or declare the format"):
        event_files(tmp_path / name)
    assert offered(tmp_path).others == [f"{tmp_path}/{name}"]
    assert event_files(tmp_path / name, FileOptions(format="csv"))[0].format == "csv"


def test_a_declared_format_is_that_of_part_files_too_and_of_what_a_pattern_matches(tmp_path: Path) -> None:
    parts = ["000000000000", "a.csv", "part-00000", "part-00001.gz", "part-2.c000", "part-3.12", "x.txt", "z.json.zst"]
    for name in (*parts, "README.md", "a.log"):
        write(tmp_path, name, b"")
    there = offered(tmp_path, FileOptions(format="json"))
    assert [Path(file.name).name for file in there.files] == parts and {file.format for file in there.files} == {"json"}
    assert [Path(name).name for name in there.others] == ["README.md", "a.log"]
    assert [Path(file.name).name for file in event_files(f"{tmp_path}/*.log", FileOptions("json"))] == ["a.log"]


def test_what_is_declared_goes_with_each_file(tmp_path: Path) -> None:
    write(tmp_path, "a.tsv", b"")
    [file] = event_files(tmp_path, FileOptions("json", "cp1252", ";"))
    assert (file.format, file.encoding, file.delimiter) == ("json", "cp1252", ";")


# The folders around it.


@pytest.mark.parametrize(
    ("folders", "values"),
    [
        ("day=2025-02-01", {"day": "2025-02-01"}),
        ("dt=2025-02-01/hour=7", {"dt": "2025-02-01", "hour": "7"}),
        ("event_date=2025-02-01/day=1/event_date=2025-02-02", {"event_date": "2025-02-02", "day": "1"}),
        ("at=2025-02-01 10%3A00%3A00/a%3Db=%25", {"at": "2025-02-01 10:00:00", "a=b": "%"}),
        ("x=a=b/y=", {"x": "a=b"}),
        ("day=__HIVE_DEFAULT_PARTITION__/hour=%FF/=1", {}),
        ("plain", {}),
    ],
)
def test_folders_that_are_called_name_and_value_say_the_value(
    folders: str, values: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, f"{folders}/x=9.csv", b"")
    assert dict(event_files(tmp_path)[0].folder_values) == values
    monkeypatch.chdir(tmp_path / folders)
    assert dict(event_files(Path("x=9.csv"))[0].folder_values) == values  # those above it are around it too


def test_a_folder_says_what_it_is_called_wherever_its_files_really_are(tmp_path: Path) -> None:
    real = write(tmp_path, "blobs/dt=2025-02-09/7e57", b"")
    (tmp_path / "ev/day=2025-02-01").mkdir(parents=True)
    (tmp_path / "ev/day=2025-02-01/a.csv").symlink_to(real)
    [file] = event_files(tmp_path / "ev")
    assert dict(file.folder_values) == {"day": "2025-02-01", "dt": "2025-02-09"}


# Packing.


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_first_bytes_say_how_a_file_is_packed_that_its_name_says_nothing_of(packing: str, tmp_path: Path) -> None:
    file = event_file(write(tmp_path, "a.csv", PACK[packing](TEXT.encode("utf-16"))))
    assert (file.compression, file.named_compression, file.is_plain) == (PACKINGS[packing], None, False)
    assert read(file) == TEXT.encode()


@pytest.mark.parametrize("packing", PACKINGS)
def test_several_members_in_one_packed_file_are_read_one_after_the_other(packing: str, tmp_path: Path) -> None:
    members = [TEXT[:1], "", TEXT[1:20], TEXT[20:], TEXT * 50_000]
    content = b"".join(PACK[packing](member.encode("utf-8")) for member in members)
    assert read(event_file(write(tmp_path, f"a.csv{packing}", content))) == (TEXT + TEXT * 50_000).encode()


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_packed_file_that_is_cut_or_damaged_or_another_thing_is_refused(packing: str, tmp_path: Path) -> None:
    whole = PACK[packing](TEXT.encode() * 1000)
    others = [pack(TEXT.encode()) for name, pack in PACK.items() if PACKINGS.get(name) not in (None, PACKINGS[packing])]
    cut = [whole[:-1], whole[: len(whole) // 2], whole[:12], whole + whole[:20], whole + b"junk", whole[:3]]
    for content in (*cut, b"", TEXT.encode(), *others):
        path = write(tmp_path, f"a.csv{packing}", content)
        with pytest.raises(BadInput, match=rf"{path} cannot be read as {PACKINGS[packing]}: it is damaged"):
            read(event_file(path))


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_parquet_is_given_as_stored_seekable_and_opened_unpacked(packing: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"user_id": ["müller"]}), buffer)
    file = event_file(write(tmp_path, f"a.parquet{packing}", PACK[packing](buffer.getvalue())))
    assert read(file) == buffer.getvalue() and file.is_plain is (packing == "")
    with file.stored() as stored:
        assert stored.seekable() and stored.read() == PACK[packing](buffer.getvalue())


def test_parquet_that_is_named_as_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a.csv is Parquet, and is read as csv"):
        read(event_file(write(tmp_path, "a.csv", b"PAR1....PAR1")))


def test_how_much_of_a_file_was_read_is_told_in_its_stored_bytes(tmp_path: Path) -> None:
    seen = []
    for packing in PACKINGS:
        file = event_file(write(tmp_path, f"a.csv{packing}", PACK[packing](TEXT.encode("utf-16") * 1000)))
        with file.opened(seen.append) as opened:
            assert seen[-1].tell() <= file.size and opened.read() and seen[-1].tell() == file.size


# Encodings.

MARKED = ("utf-8-sig", "utf-16", "utf-32")
DECLARED = ("cp1252", "latin-1", "utf-16-be", "shift_jis", "utf-7")


@pytest.mark.parametrize("packing", ["", *PACKINGS])
@pytest.mark.parametrize("encoding", ["utf-8", *MARKED, "utf-16-le", "utf-16-be"])
def test_the_encoding_is_told_by_its_mark_or_by_every_other_byte(encoding: str, packing: str, tmp_path: Path) -> None:
    file = event_file(write(tmp_path, f"a.csv{packing}", PACK[packing](TEXT.encode(encoding))))
    assert read(file) == TEXT.encode()
    assert file.is_plain is (encoding.startswith("utf-8") and not packing)
    assert file.has_bom is (encoding == "utf-8-sig" and not packing)


def test_utf_16_of_the_other_order_with_its_mark_is_told_too(tmp_path: Path) -> None:
    assert read(event_file(write(tmp_path, "a.csv", f"\ufeff{TEXT}".encode("utf-16-be")))) == TEXT.encode()


@pytest.mark.parametrize("content", [b"", b"\n", b"u", b"\0\0\0\0", b"a\0", b"a,\xff\xfe\n", "{}\n".encode("latin-1")])
def test_all_else_is_taken_for_utf_8_as_it_stands(content: bytes, tmp_path: Path) -> None:
    """A row that is not UTF-8 is a bad row, of a file that is none."""
    file = event_file(write(tmp_path, "a.csv", content))
    assert read(file) == content and file.is_plain


@pytest.mark.parametrize("encoding", [*DECLARED, "UTF8", "windows-1252"])
def test_a_declared_encoding_is_that_of_the_file(encoding: str, tmp_path: Path) -> None:
    text = TEXT.replace("ü", "a") if encoding == "shift_jis" else TEXT
    file = event_file(write(tmp_path, "a.csv", text.encode(encoding)), FileOptions(encoding=encoding))
    assert read(file) == text.encode() and file.is_plain is (encoding == "UTF8")


def test_a_mark_in_a_declared_encoding_is_no_part_of_the_text(tmp_path: Path) -> None:
    for encoding in ("utf-16-le", "utf-8"):
        path = write(tmp_path, "a.csv", f"\ufeff{TEXT}".encode(encoding))
        assert read(event_file(path, FileOptions(encoding=encoding))) == TEXT.encode()


@pytest.mark.parametrize(
    ("encoding", "content"),
    [("ascii", b"planted-\xff\n"), ("shift_jis", b"planted-\x81"), ("utf-16-le", "planted".encode("utf-16-le")[:-1])],
)
def test_bytes_that_are_none_in_the_declared_encoding_are_bad_input_that_quotes_nothing(
    encoding: str, content: bytes, tmp_path: Path
) -> None:
    path = write(tmp_path, "a.csv", b"x\n\0" * 2000 + content if encoding == "ascii" else content)
    with pytest.raises(BadInput, match=f"{path} holds bytes that are no text in the encoding {encoding}") as raised:
        read(event_file(path, FileOptions(encoding=encoding)))
    assert "planted" not in str(raised.value) and raised.value.__suppress_context__


@pytest.mark.parametrize("encoding", ["klingon", "", "rot13", "base64", "undefined", "a\0b"])
def test_an_unknown_encoding_is_refused_before_anything_is_read(encoding: str, tmp_path: Path) -> None:
    write(tmp_path, "a.csv", b"")
    with pytest.raises(BadInput, match=r"The encoding .* is unknown"):
        event_files(tmp_path, FileOptions(encoding=encoding))


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\ufeff"), max_size=40),
    times=st.sampled_from([1, 9_000]),
    encoding=st.sampled_from(["utf-8", *MARKED, "utf-16-le", "utf-32-be", "gb18030"]),
    packing=st.sampled_from(["", *PACKINGS]),
    size=st.sampled_from([1, 7, 1 << 16]),
)
def test_the_text_is_the_one_that_python_decodes(text: str, times: int, encoding: str, packing: str, size: int) -> None:
    stored = io.BytesIO(PACK[packing]((text * times).encode(encoding)))
    declared = None if encoding in MARKED else encoding
    size = size if times == 1 else 1 << 16
    with unpacked(stored, PACKINGS.get(packing)) as plain:  # type: ignore[arg-type]
        opened = as_utf8(plain, declared, ValueError)
        assert b"".join(iter(lambda: opened.read(size), b"")) == (text * times).encode()


# What cannot be opened, and what is handed on.


def test_a_file_that_is_not_there_or_no_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be opened: No such file"):
        read(event_file(tmp_path / "a.csv"))
    with pytest.raises(BadInput, match="has no known ending"):
        event_file(tmp_path / "a.avro")


def test_a_file_is_the_same_value_for_the_same_path_and_crosses_to_another_process(tmp_path: Path) -> None:
    path = write(tmp_path, "day=2025-02-01/a.csv", TEXT.encode())
    file, again = event_file(path), event_files(tmp_path)[0]
    assert file == again and hash(file) == hash(again) and read(pickle.loads(pickle.dumps(file))) == TEXT.encode()


# Files from public reports of bugs.


def test_empty_parts_stay_in_the_list_and_hold_nothing(tmp_path: Path) -> None:
    write(tmp_path, "part-00000.csv", TEXT.encode())
    write(tmp_path, "part-00001.csv", b"")
    write(tmp_path, "_SUCCESS", b"")
    files = event_files(tmp_path)
    assert [file.size for file in files] == [len(TEXT.encode()), 0] and read(files[1]) == b"" and files[1].is_plain
