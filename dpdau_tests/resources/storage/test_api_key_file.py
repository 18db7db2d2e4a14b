"""The file of API keys: what it keeps, who may read it, and what happens when it changes under a reader."""

from __future__ import annotations

import base64
import json
import os
import stat
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.api_keys import SCOPES, Scope, authenticate, hash_of
from dpdau_assets.core.errors import BadInput, BadSetting, Refused
from dpdau_assets.core.settings import Settings
from dpdau_tests.support.racing import race
from resources.storage.api_key_file import ApiKeyFile, api_key_file

TODAY = date(2025, 3, 31)
INGEST: frozenset[Scope] = frozenset({"ingest"})
EACH = 10  # keys a process makes and revokes, beside another


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeyFile:
    return ApiKeyFile(tmp_path / "api_keys.json")


def content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "api_keys.json").read_text())


def written(folder: Path, text: str, mode: int = 0o600) -> ApiKeyFile:
    path = folder / "api_keys.json"
    path.write_text(text)
    path.chmod(mode)
    return ApiKeyFile(path)


def test_a_key_is_32_bytes_and_another_process_reads_it_from_the_next_request_on(
    keys: ApiKeyFile, tmp_path: Path
) -> None:
    server = ApiKeyFile(tmp_path / "api_keys.json")
    assert server.read() == ()
    key, text = keys.add("shop", INGEST, TODAY)
    assert len(base64.urlsafe_b64decode(f"{text}=")) == 32 and len(text) == 43
    assert server.read() == (key,) and authenticate(text, server.read(), TODAY) == key
    assert keys.revoke("shop", TODAY) == (key.id,)
    assert authenticate(text, server.read(), TODAY) == "unknown"


def test_the_file_is_its_owners_alone_and_holds_no_key_and_no_hash_of_a_revoked_one(
    keys: ApiKeyFile, tmp_path: Path
) -> None:
    umask = os.umask(0)
    try:
        (old, old_text), (_, text) = (keys.add("shop", INGEST, TODAY) for _ in range(2))
    finally:
        os.umask(umask)
    keys.revoke(old.id, TODAY)
    files = {path.name: path for path in tmp_path.iterdir()}
    assert files.keys() == {"api_keys.json", "api_keys.json.lock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    kept = files["api_keys.json"].read_text()
    assert hash_of(text) in kept and not any(gone in kept for gone in (text, old_text, hash_of(old_text)))
    assert content(tmp_path)["version"] == 1
    assert [row["id"] for row in content(tmp_path)["keys"]] == [key.id for key in keys.read()]


def test_an_id_is_eight_hex_digits_and_says_nothing_of_the_key(keys: ApiKeyFile) -> None:
    made = [keys.add(f"name-{number}", INGEST, TODAY) for number in range(20)]
    assert len({key.id for key, _ in made}) == 20
    for key, text in made:
        assert len(key.id) == 8 and int(key.id, 16) >= 0 and key.id not in hash_of(text)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
            st.frozensets(st.sampled_from(SCOPES), min_size=1),
            st.none() | st.integers(0, 1000),
            st.booleans(),
        ),
        max_size=4,
        unique_by=lambda made: made[0],
    )
)
def test_what_was_written_is_read_back_whole_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, frozenset[Any], int | None, bool]]
) -> None:
    path = tmp_path_factory.mktemp("keys") / "api_keys.json"
    keys, texts = ApiKeyFile(path), []
    for name, scopes, lasts, is_revoked in made:
        last = None if lasts is None else TODAY + timedelta(days=lasts)
        key, text = keys.add(name, scopes, TODAY, last)
        assert (key.name, key.scopes, key.created_on, key.expires_on) == (name, scopes, TODAY, last)
        texts.append(text)
        if is_revoked:
            assert keys.revoke(name, TODAY) == (key.id,)
    read = ApiKeyFile(path).read()
    assert read == keys.read() and [key.name for key in read] == [name for name, *_ in made]
    for (*_, is_revoked), key, text in zip(made, read, texts, strict=True):
        assert authenticate(text, read, TODAY) == ("unknown" if is_revoked else key)


def test_what_is_refused_leaves_the_file_as_it_was(keys: ApiKeyFile, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        keys.add("no name", INGEST, TODAY)
    assert not (tmp_path / "api_keys.json").exists()
    for _ in range(2):
        keys.add("shop", INGEST, TODAY)
    before = (tmp_path / "api_keys.json").read_bytes()
    with pytest.raises(Refused):
        keys.add("shop", INGEST, TODAY)
    with pytest.raises(BadInput):
        keys.revoke("nobody", TODAY)
    assert (tmp_path / "api_keys.json").read_bytes() == before


def test_revoking_again_changes_nothing(keys: ApiKeyFile, tmp_path: Path) -> None:
    key, _ = keys.add("shop", INGEST, TODAY)
    assert keys.revoke(key.id, TODAY) == (key.id,)
    before = (tmp_path / "api_keys.json").stat()
    assert keys.revoke("shop", TODAY + timedelta(days=1)) == ()
    assert (tmp_path / "api_keys.json").stat().st_ino == before.st_ino
    assert keys.read()[0].revoked_on == TODAY


def make_and_revoke(folder: Path, name: str) -> list[str]:
    """Makes keys of this name, and revokes all but the last; the ids."""
    keys, ids = ApiKeyFile(folder / "api_keys.json"), []
    for _ in range(EACH):
        if ids:
            keys.revoke(ids[-1], TODAY)
        ids.append(keys.add(name, INGEST, TODAY)[0].id)
    return ids


def test_two_processes_do_not_lose_one_anothers_keys_and_revocations(keys: ApiKeyFile, tmp_path: Path) -> None:
    made = race(make_and_revoke, [(tmp_path, "shop"), (tmp_path, "dashboard")])
    states = {key.id: key.state(TODAY) for key in keys.read()}
    assert states.keys() == {*made[0], *made[1]} and len(states) == 2 * EACH
    assert {key for key, state in states.items() if state == "valid"} == {made[0][-1], made[1][-1]}


# --- Reading -------------------------------------------------------------------------------------------------------


def test_an_unchanged_file_is_not_opened_again(keys: ApiKeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.add("shop", INGEST, TODAY)
    first, opened, really = keys.read(), [], Path.open

    def noted(path: Path, *how: Any, **options: Any) -> Any:
        opened.append(path.name)
        return really(path, *how, **options)

    monkeypatch.setattr(Path, "open", noted)
    assert all(keys.read() is first for _ in range(10)) and opened == []
    keys.add("dashboard", INGEST, TODAY)
    opened.clear()
    assert len(keys.read()) == 2 and len(keys.read()) == 2 and opened == ["api_keys.json"]


def test_a_file_that_is_gone_is_no_keys_and_one_that_is_put_back_is_read(keys: ApiKeyFile, tmp_path: Path) -> None:
    keys.add("shop", INGEST, TODAY)
    read, path = keys.read(), tmp_path / "api_keys.json"
    path.rename(tmp_path / "away")
    assert keys.read() == () and ApiKeyFile(tmp_path / "nowhere" / "file").read() == ()
    (tmp_path / "away").rename(path)
    assert keys.read() == read


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_file_that_is_opened_to_others_is_refused_also_after_it_was_read(
    mode: int, keys: ApiKeyFile, tmp_path: Path
) -> None:
    key, _ = keys.add("shop", INGEST, TODAY)
    assert keys.read() == (key,)
    (tmp_path / "api_keys.json").chmod(mode)
    for refused in (keys.read, lambda: keys.add("shop", INGEST, TODAY), lambda: keys.revoke("shop", TODAY)):
        with pytest.raises(BadSetting, match=f"{mode:04o}.*chmod 600"):
            refused()
    (tmp_path / "api_keys.json").chmod(0o600)
    assert keys.read() == (key,)


ROW = {
    "id": "9cab91c6",
    "name": "shop",
    "sha256": "e6" * 32,
    "scopes": ["read"],
    "created_on": "2025-03-31",
    "expires_on": None,
    "revoked_on": None,
}


def test_a_whole_row_is_read(tmp_path: Path) -> None:
    (key,) = written(tmp_path, json.dumps({"version": 1, "keys": [ROW]})).read()
    assert (key.id, key.sha256, key.scopes, key.created_on) == (ROW["id"], ROW["sha256"], {"read"}, TODAY)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "9CAB91C6"},
        {"id": 12345678},
        {"name": "a b"},
        {"name": None},
        {"sha256": None},
        {"sha256": "e6"},
        {"revoked_on": "2025-03-31"},
        {"scopes": []},
        {"scopes": ["root"]},
        {"scopes": [["read"]]},
        {"scopes": None},
        {"created_on": None},
        {"created_on": "yesterday"},
        {"expires_on": "2025-02-30"},
        {"more": 1},
    ],
)
def test_a_row_that_is_not_as_it_was_written_is_damage(change: dict[str, Any], tmp_path: Path) -> None:
    require_damaged(written(tmp_path, json.dumps({"version": 1, "keys": [{**ROW, **change}]})))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"keys"',
        '{"keys": []}',
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": null}',
        '{"version": 1, "keys": [null]}',
        '{"version": 1, "keys": [[]]}',
        json.dumps({"version": 1, "keys": [ROW, ROW]}),
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_damage_and_stays_as_it_is(text: str, tmp_path: Path) -> None:
    (tmp_path / "api_keys.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "api_keys.json").chmod(0o600)
    keys = ApiKeyFile(tmp_path / "api_keys.json")
    require_damaged(keys)
    with pytest.raises(BadSetting):
        keys.add("shop", INGEST, TODAY)
    assert (tmp_path / "api_keys.json").read_bytes() == text.encode("utf-8", "surrogateescape")


def test_what_is_no_file_cannot_be_read_and_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "api_keys.json").mkdir()
    with pytest.raises(BadSetting, match=r"api_keys\.json cannot be read: .*API_KEYS_FILE"):
        ApiKeyFile(tmp_path / "api_keys.json").read()


def require_damaged(keys: ApiKeyFile) -> None:
    for _ in range(2):
        with pytest.raises(BadSetting, match="is damaged") as raised:
            keys.read()
        assert "e6e6" not in str(raised.value) and raised.value.__suppress_context__


def test_the_settings_say_where_the_file_is(tmp_path: Path) -> None:
    inside, outside = (
        Settings(data_dir=tmp_path / "data"),
        Settings(data_dir=tmp_path / "data", api_keys_file=tmp_path / "elsewhere" / "keys.json"),
    )
    api_key_file(inside).add("inside", INGEST, TODAY)
    api_key_file(outside).add("outside", INGEST, TODAY)
    assert [key.name for key in ApiKeyFile(tmp_path / "data" / "api_keys.json").read()] == ["inside"]
    assert [key.name for key in ApiKeyFile(tmp_path / "elsewhere" / "keys.json").read()] == ["outside"]
