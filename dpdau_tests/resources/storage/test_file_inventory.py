"""Every file on the premises, and what is packed inside."""

from __future__ import annotations

import bz2
import fcntl
import gzip
import io
import lzma
import os
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdau_assets.core.errors import BadInput
from resources.storage.file_inventory import DiskFileInventory, StoredFile

CONTENT = bytes(range(256)) * 50
KEY = 0x9ABCDEF012345678
KEY_BYTES = KEY.to_bytes(8, "little")


def names(**roots: Path) -> list[str]:
    return [file.name for file in DiskFileInventory(roots).files()]


def unpacked(folder: Path, content: bytes) -> bytes:
    path = folder / "packed"
    path.write_bytes(content)
    return b"".join(DiskFileInventory({"": folder}).unpacked(StoredFile("packed", path)))


def zipped(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as file:
        file.writestr("folder/member", content)
        file.writestr("another", b"also")
    return archive.getvalue()


def parquet(column: pa.Array, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"column": column}), file, **options)
    return file.getvalue()


def lzma_alone(content: bytes) -> bytes:
    return lzma.compress(content, format=lzma.FORMAT_ALONE)


# --- The walk ----------------------------------------------------------------------------------------------------


def test_every_file_is_there_by_its_path_below_its_root(tmp_path: Path) -> None:
    for name in ("data/b.parquet", "data/day=1/epoch=0.parquet", "data/.hidden", "home/history/runs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    premises = DiskFileInventory({"": tmp_path / "data", "home": tmp_path / "home"})
    expected = [".hidden", "b.parquet", "day=1/epoch=0.parquet", "home/history/runs.db"]
    assert [file.name for file in premises.files()] == expected


def test_a_root_may_be_a_single_file_or_missing(tmp_path: Path) -> None:
    (tmp_path / "books.sqlite").touch()
    assert names(ledger=tmp_path / "books.sqlite", wal=tmp_path / "books.sqlite-wal") == ["ledger"]
    assert [file.name for file in DiskFileInventory({"": tmp_path / "books.sqlite"}).files()] == ["books.sqlite"]


def test_a_root_inside_another_is_walked_once_under_the_outer_one(tmp_path: Path) -> None:
    (tmp_path / "data" / "home").mkdir(parents=True)
    (tmp_path / "data" / "home" / "runs.db").touch()
    roots = {"home": tmp_path / "data" / "home", "runs": tmp_path / "data" / "home" / "runs.db"}
    assert names(**roots, data=tmp_path / "data") == ["data/home/runs.db"]
    assert names(one=tmp_path / "data", two=tmp_path / "data") == ["one/home/runs.db"]


def test_a_linked_file_counts_under_its_own_name_and_a_linked_folder_once(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "far.parquet").write_bytes(CONTENT)
    data = tmp_path / "data"
    (data / "state").mkdir(parents=True)
    (data / "state" / "near.parquet").touch()
    (data / "a_file").symlink_to(tmp_path / "disk" / "far.parquet")
    (data / "a_folder").symlink_to(tmp_path / "disk")
    (data / "a_second_name").symlink_to(data / "state")
    (data / "a_loop").symlink_to(data)
    (data / "dangling").symlink_to(tmp_path / "nowhere")
    (data / "itself").symlink_to(data / "itself")
    premises = DiskFileInventory({"": data})
    files = {file.name: file for file in premises.files()}
    assert list(files) == ["a_file", "a_folder/far.parquet", "state/near.parquet"]
    assert b"".join(premises.chunks(files["a_file"])) == CONTENT


def test_pipes_and_sockets_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        assert names(data=tmp_path) == []


def test_a_temporary_file_counts_once_its_writer_is_dead(tmp_path: Path) -> None:
    path = tmp_path / ".0123.tmp"
    with path.open("wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert names(data=tmp_path) == []
    assert names(data=tmp_path) == ["data/.0123.tmp"]


def test_a_sweep_takes_dead_temporary_files_under_every_root_and_leaves_living_ones(tmp_path: Path) -> None:
    for folder in ("data", "home"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / ".00112233445566ff.tmp").touch()
    (tmp_path / "data" / "kept").touch()
    with (tmp_path / "data" / ".ff00112233445566.tmp").open("wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        file = tmp_path / "data" / "kept"
        roots = {"": tmp_path / "data", "home": tmp_path / "home", "file": file, "gone": tmp_path / "gone"}
        DiskFileInventory(roots).sweep()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".ff00112233445566.tmp", "kept"]


# --- The bytes ---------------------------------------------------------------------------------------------------


def test_a_file_comes_in_pieces_and_whole(tmp_path: Path) -> None:
    content = b"0123456789abcdef" * (9 << 16)
    (tmp_path / "large").write_bytes(content)
    pieces = list(DiskFileInventory({}).chunks(StoredFile("large", tmp_path / "large")))
    assert len(pieces) == 2
    assert b"".join(pieces) == content


def test_a_file_that_vanished_holds_nothing(tmp_path: Path) -> None:
    premises = DiskFileInventory({"": tmp_path})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(gzip.compress(CONTENT))
    (file,) = premises.files()
    file.path.unlink()
    file.path.parent.rmdir()
    assert list(premises.chunks(file)) == []
    assert list(premises.unpacked(file)) == []


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    folder = StoredFile("a folder", tmp_path)
    for read in (DiskFileInventory({}).chunks, DiskFileInventory({}).unpacked):
        with pytest.raises(BadInput, match="a folder cannot be read"):
            list(read(folder))


def test_a_folder_that_cannot_be_read_is_listed_and_refused_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "open.txt").write_bytes(b"text")
    real = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    premises = DiskFileInventory({"": tmp_path})
    assert [file.name for file in premises.files()] == ["closed", "open.txt"]
    with pytest.raises(BadInput, match="closed cannot be read"):
        list(premises.chunks(premises.files()[0]))


@pytest.mark.parametrize("content", [b"", b"plain", b"PK", b"{}" * 500, CONTENT, b"\x1f\x8b", b"BZh91234567"])
def test_what_is_not_packed_holds_nothing_inside(tmp_path: Path, content: bytes) -> None:
    assert unpacked(tmp_path, content) == b""


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lzma_alone])
@pytest.mark.parametrize("content", [b"", CONTENT, bytes(9 << 20)])
def test_a_packed_stream_is_unpacked(tmp_path: Path, pack: Callable[[bytes], bytes], content: bytes) -> None:
    assert unpacked(tmp_path, pack(content)) == content
    assert unpacked(tmp_path, pack(content) + pack(b"a second stream")) == content + b"a second stream"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_member_of_a_zip_is_unpacked(tmp_path: Path, method: int) -> None:
    assert unpacked(tmp_path, zipped(CONTENT, method)) == CONTENT + b"also"


@pytest.mark.parametrize("inner", [gzip.compress, bz2.compress, lzma.compress, zipped])
@pytest.mark.parametrize("outer", [gzip.compress, bz2.compress, lzma.compress, zipped])
def test_what_is_packed_twice_is_unpacked_twice(
    tmp_path: Path, outer: Callable[[bytes], bytes], inner: Callable[[bytes], bytes]
) -> None:
    assert CONTENT in unpacked(tmp_path, outer(inner(CONTENT)))


def test_what_is_packed_more_than_three_deep_is_refused(tmp_path: Path) -> None:
    thrice = gzip.compress(gzip.compress(gzip.compress(CONTENT)))
    assert unpacked(tmp_path, thrice).endswith(CONTENT)
    with pytest.raises(BadInput, match="more than 3 deep"):
        unpacked(tmp_path, gzip.compress(thrice))


# --- Parquet -----------------------------------------------------------------------------------------------------

INTEGERS = pa.array([1, None, KEY], pa.uint64())
TEXTS = pa.array(["a", None, "user-of-some-name"] * 50)


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"column_encoding": "DELTA_BINARY_PACKED"}])
def test_integers_in_parquet_are_shown_as_eight_bytes_each(tmp_path: Path, options: dict) -> None:
    options = {"compression": "none", "use_dictionary": False, **options}
    assert KEY_BYTES in unpacked(tmp_path, parquet(INTEGERS, **options))
    narrow = pa.array([-2, 7], pa.int16())
    shown = unpacked(tmp_path, parquet(narrow, compression="gzip"))
    assert (-2).to_bytes(8, "little", signed=True) + (7).to_bytes(8, "little") in shown


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_in_parquet_are_shown(tmp_path: Path, kind: pa.DataType) -> None:
    assert b"user-of-some-name" in unpacked(tmp_path, parquet(TEXTS.cast(kind), compression="snappy"))


LISTS = pa.ListArray.from_arrays(pa.array([0, 3, 150], pa.int32()), TEXTS.dictionary_encode())


@pytest.mark.parametrize("column", [LISTS, pa.StructArray.from_arrays([LISTS], ["field"])], ids=["lists", "structs"])
def test_texts_in_nested_columns_of_parquet_are_shown(tmp_path: Path, column: pa.Array) -> None:
    assert b"user-of-some-name" in unpacked(tmp_path, parquet(column, compression="gzip"))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.struct({"key": pa.list_(pa.uint64())}), {"key": [KEY]}),
        (pa.map_(pa.string(), pa.uint64()), [("name", KEY)]),
        (pa.list_(pa.uint64(), 2), [KEY, 0]),
        (pa.large_list(pa.uint64()), [KEY]),
    ],
    ids=str,
)
def test_integers_in_nested_columns_of_parquet_are_shown(tmp_path: Path, kind: pa.DataType, value: object) -> None:
    assert KEY_BYTES in unpacked(tmp_path, parquet(pa.array([None, value], kind), compression="gzip"))


def test_parquet_comes_by_row_group(tmp_path: Path) -> None:
    shown = unpacked(tmp_path, parquet(pa.array(range(1000)), row_group_size=100, compression="snappy"))
    assert all(number.to_bytes(8, "little") in shown for number in range(1000))


def test_of_parquet_whose_own_bytes_show_every_value_nothing_is_shown_again(tmp_path: Path) -> None:
    plain = parquet(INTEGERS, compression="none", use_dictionary=False, column_encoding="PLAIN")
    assert KEY_BYTES in plain
    assert unpacked(tmp_path, plain) == b""


@pytest.mark.parametrize("pack", [gzip.compress, zipped, lambda content: zipped(gzip.compress(content))])
def test_packed_parquet_is_looked_into(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    assert KEY_BYTES in unpacked(tmp_path, pack(parquet(INTEGERS, compression="zstd")))


# --- What cannot be looked into ----------------------------------------------------------------------------------


def encrypted_zip() -> bytes:
    archive = bytearray(zipped(CONTENT))
    archive[archive.index(b"PK\x01\x02") + 8] |= 1  # the directory says that the member is encrypted
    return bytes(archive)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x28\xb5\x2f\xfd" + CONTENT, "zstd"),
        (b"\x04\x22\x4d\x18" + CONTENT, "lz4"),
        (b"7z\xbc\xaf\x27\x1c" + CONTENT, "7z"),
        (b"Rar!\x1a\x07\x01\x00" + CONTENT, "RAR"),
        (encrypted_zip(), "encrypted zip"),
        (gzip.compress(CONTENT)[:-4], "damaged"),
        (gzip.compress(CONTENT)[:-9] + bytes(9), "damaged"),
        (bz2.compress(CONTENT)[:-20], "damaged"),
        (bz2.compress(CONTENT)[:20] + bytes(80), "damaged"),
        (lzma.compress(CONTENT)[:-20], "damaged"),
        (lzma.compress(CONTENT)[:30] + bytes(80), "damaged"),
        (zipped(CONTENT)[:-30], "damaged"),
        (zipped(CONTENT, zipfile.ZIP_STORED).replace(CONTENT, CONTENT[::-1]), "damaged"),
        (parquet(INTEGERS)[:-6], "damaged"),
        (b"PAR1" + CONTENT, "damaged"),
    ],
)
def test_what_cannot_be_looked_into_is_refused_by_name(tmp_path: Path, content: bytes, what: str) -> None:
    for packed in (content, gzip.compress(content)):
        with pytest.raises(BadInput, match=f"^packed is .*{what}") as refusal:
            unpacked(tmp_path, packed)
        assert refusal.value.fields == {"file": "packed"}
