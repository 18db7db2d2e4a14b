"""Every file in the inventory, and which of them show what they hold."""

from __future__ import annotations

import base64
import bz2
import fcntl
import gzip
import io
import lzma
import os
import socket
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather
from pyarrow.parquet import encryption

from dpdau_assets.core.errors import BadInput
from dpdau_tests.support.racing import apart
from resources.storage.file_inventory import DiskFileInventory, StoredFile

CONTENT = bytes(range(256)) * 50
KEY = 0x9ABCDEF012345678
KEY_BYTES = KEY.to_bytes(8, "little")


def names(**roots: Path) -> list[str]:
    return [file.name for file in DiskFileInventory(roots).files()]


def read(folder: Path, content: bytes, name: str = "a file") -> bytes:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return b"".join(DiskFileInventory({"": folder}, ["mart/table.duckdb"]).chunks(StoredFile(name, path)))


def archive(content: bytes, kind: str) -> bytes:
    """An archive as whoever copies a folder would leave it."""
    packed = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as file:
            file.writestr("folder/member", content)
    else:
        with tarfile.open(fileobj=packed, mode="w") as file:
            member = tarfile.TarInfo("folder/member")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return packed.getvalue()


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
    inventory = DiskFileInventory({"": tmp_path / "data", "home": tmp_path / "home"})
    expected = [".hidden", "b.parquet", "day=1/epoch=0.parquet", "home/history/runs.db"]
    assert [file.name for file in inventory.files()] == expected


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
    inventory = DiskFileInventory({"": data})
    files = {file.name: file for file in inventory.files()}
    assert list(files) == ["a_file", "a_folder/far.parquet", "state/near.parquet"]
    assert b"".join(inventory.chunks(files["a_file"])) == CONTENT


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
    inventory = DiskFileInventory({"": tmp_path})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(CONTENT)
    (file,) = inventory.files()
    file.path.unlink()
    file.path.parent.rmdir()
    assert list(inventory.chunks(file)) == []


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    folder = StoredFile("a folder", tmp_path)
    with pytest.raises(BadInput, match="a folder cannot be read"):
        list(DiskFileInventory({}).chunks(folder))


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
    inventory = DiskFileInventory({"": tmp_path})
    assert [file.name for file in inventory.files()] == ["closed", "open.txt"]
    with pytest.raises(BadInput, match="closed cannot be read"):
        list(inventory.chunks(inventory.files()[0]))


@pytest.mark.parametrize("content", [b"", b"plain", b"PK", b"{}" * 500, CONTENT, b"\x1f\x8b", b"BZh91234567", b"PAR"])
def test_what_is_not_packed_is_read_as_it_is(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == content


# --- Parquet -----------------------------------------------------------------------------------------------------

INTEGERS = pa.array([1, None, KEY], pa.uint64())
TEXTS = pa.array(["a", None, "user-of-some-name"] * 50)
PLAIN = {"compression": "none", "use_dictionary": False, "column_encoding": "PLAIN"}


@pytest.mark.parametrize(
    ("column", "shown"), [(INTEGERS, KEY_BYTES), (TEXTS, b"user-of-some-name")], ids=["integers", "texts"]
)
@pytest.mark.parametrize("options", [PLAIN, {"compression": "none"}], ids=["plain", "by a dictionary"])
def test_parquet_that_shows_every_value_is_read_as_it_is(
    tmp_path: Path, column: pa.Array, shown: bytes, options: dict
) -> None:
    content = parquet(column, **options)
    assert shown in content and read(tmp_path, content) == content


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "snappy"},
        {"compression": "zstd", "row_group_size": 1},
        {**PLAIN, "column_encoding": "DELTA_BINARY_PACKED"},
        {**PLAIN, "column_encoding": "BYTE_STREAM_SPLIT"},
    ],
    ids=str,
)
def test_parquet_that_compresses_or_encodes_its_values_is_refused(tmp_path: Path, options: dict) -> None:
    with pytest.raises(BadInput, match="Parquet does"):
        read(tmp_path, parquet(INTEGERS, **options))


def test_one_column_that_is_compressed_closes_a_parquet_file(tmp_path: Path) -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"a": INTEGERS, "b": INTEGERS}), file, compression={"a": "none", "b": "gzip"})
    with pytest.raises(BadInput, match="Parquet does"):
        read(tmp_path, file.getvalue())


class _Keys(encryption.KmsClient):
    """Wraps nothing: what is asked is whether a file is encrypted."""

    def __init__(self, _: object) -> None:
        super().__init__()

    def wrap_key(self, key_bytes: bytes, _: str) -> bytes:
        return base64.b64encode(key_bytes)


@pytest.mark.parametrize(("plain_footer", "kind"), [(True, "Parquet"), (False, "encrypted Parquet")])
def test_encrypted_parquet_is_refused_also_where_its_footer_can_be_read(
    tmp_path: Path, plain_footer: bool, kind: str
) -> None:
    how = encryption.EncryptionConfiguration("footer", column_keys={"her": ["column"]}, plaintext_footer=plain_footer)
    keys = encryption.CryptoFactory(_Keys).file_encryption_properties(encryption.KmsConnectionConfig(), how)
    with pytest.raises(BadInput, match=f"begins as {kind} does"):
        read(tmp_path, parquet(INTEGERS, encryption_properties=keys, **PLAIN))


# --- What is not opened ------------------------------------------------------------------------------------------


def duckdb_file(folder: Path) -> bytes:
    with duckdb.connect(folder / "other.duckdb") as table:
        table.execute("CREATE TABLE keys AS SELECT 1 AS key")
    return (folder / "other.duckdb").read_bytes()


def arrow(content: bytes) -> bytes:
    file = io.BytesIO()
    feather.write_feather(pa.table({"column": [content]}), file, compression="lz4")
    return file.getvalue()


def avro(content: bytes) -> bytes:
    return b"Obj\x01\x04\x14avro.codec\x0edeflate" + content


@pytest.mark.parametrize(
    ("pack", "kind"),
    [
        (gzip.compress, "gzip"),
        (bz2.compress, "bz2"),
        (lambda content: bz2.compress(b""), "bz2"),
        (lzma.compress, "xz"),
        (lzma_alone, "lzma"),
        (lambda content: archive(content, "zip"), "zip"),
        (lambda content: archive(content, "tar"), "tar"),
        (lambda content: pa.Codec("zstd").compress(content, asbytes=True), "zstd"),
        (lambda content: pa.Codec("lz4").compress(content, asbytes=True), "lz4"),
        (lambda content: b"7z\xbc\xaf\x27\x1c" + content, "7z"),
        (lambda content: b"Rar!\x1a\x07\x01\x00" + content, "RAR"),
        (lambda content: b"PAR1" + content, "Parquet"),
        (lambda content: parquet(INTEGERS, **PLAIN)[:-6], "Parquet"),
        (lambda content: b"PARE\x01\x02\0\0" + content, "encrypted Parquet"),
        (arrow, "Arrow"),
        (avro, "Avro"),
    ],
)
def test_what_may_pack_its_bytes_is_refused_by_name_before_any_of_them(
    tmp_path: Path, pack: Callable[[bytes], bytes], kind: str
) -> None:
    """The content may stand in it as it is: who cannot be sure of all of it vouches for none."""
    with pytest.raises(BadInput, match=f"^a file begins as {kind} does, .* cannot be vouched for") as refusal:
        read(tmp_path, pack(CONTENT))
    assert refusal.value.fields == {"file": "a file"}


def test_of_duckdb_only_the_mart_that_is_named_is_read(tmp_path: Path) -> None:
    content = duckdb_file(tmp_path)
    assert read(tmp_path, content, "mart/table.duckdb") == content
    for name in ("table.duckdb", "mart/another.duckdb"):
        with pytest.raises(BadInput, match="begins as DuckDB does"):
            read(tmp_path, content, name)
    with pytest.raises(BadInput, match="begins as gzip does"):
        read(tmp_path, gzip.compress(content), "mart/table.duckdb")


# --- Databases that are open here --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ledger.sqlite", "of another name"])
def test_a_database_that_this_process_has_open_keeps_its_locks_when_it_is_read(tmp_path: Path, name: str) -> None:
    """The other process would be the last one that has it open, and take away the log that this one writes into."""
    path = tmp_path / name
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE numbers (number)")
        inventory = DiskFileInventory({"": tmp_path})
        files = inventory.files()
        assert [file.name for file in files] == [name, f"{name}-shm", f"{name}-wal"]
        for file in files:
            assert sum(map(len, inventory.chunks(file))) == file.path.stat().st_size
        assert apart(numbers_in, path) == []
        connection.execute("INSERT INTO numbers VALUES (7)")
        assert apart(numbers_in, path) == [7]


def numbers_in(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM numbers")]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, (8 << 20) + 1, (16 << 20) + 700])
def test_a_database_is_read_whole_in_pieces(tmp_path: Path, size: int) -> None:
    content = (b"0123456789abcde" * (size // 15 + 1))[:size]
    (tmp_path / "x.sqlite").write_bytes(content)
    pieces = list(DiskFileInventory({}).chunks(StoredFile("x.sqlite", tmp_path / "x.sqlite")))
    assert b"".join(pieces) == content and [len(piece) for piece in pieces[:-1]] == [8 << 20] * (len(pieces) - 1)


def test_what_is_named_as_a_database_is_refused_if_it_packs_something_and_holds_nothing_if_it_is_gone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.sqlite"
    inventory, file = DiskFileInventory({}), StoredFile("x.sqlite", path)
    assert list(inventory.chunks(file)) == []
    path.write_bytes(gzip.compress(b"text"))
    with pytest.raises(BadInput, match=r"x\.sqlite begins as gzip does"):
        list(inventory.chunks(file))
    path.write_bytes(parquet(INTEGERS, **PLAIN))
    assert b"".join(inventory.chunks(file)) == path.read_bytes()
    path.unlink()
    path.mkdir()
    with pytest.raises(BadInput, match=r"x\.sqlite cannot be read"):
        list(inventory.chunks(file))


def test_where_no_other_process_starts_nobody_takes_the_file_for_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.sqlite").write_bytes(CONTENT)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"x\.sqlite cannot be read: `cat` does not start"):
        list(DiskFileInventory({}).chunks(StoredFile("x.sqlite", tmp_path / "x.sqlite")))


# --- What the API remembers --------------------------------------------------------------------------------------


def test_requests_expire_in_the_data_directory_alone_also_where_it_lies_inside_another_root(tmp_path: Path) -> None:
    for folder in ("home/data/api", "home/api"):
        (tmp_path / folder).mkdir(parents=True)
        for day in ("2025-01-01", "2025-01-02"):
            (tmp_path / folder / f"{day}.sqlite").touch()
    DiskFileInventory({"": tmp_path / "home" / "data", "home": tmp_path / "home"}).expire_requests(date(2025, 1, 2))
    DiskFileInventory({}).expire_requests(date(2025, 1, 9))
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.sqlite"))
    assert left == ["home/api/2025-01-01.sqlite", "home/api/2025-01-02.sqlite", "home/data/api/2025-01-02.sqlite"]
