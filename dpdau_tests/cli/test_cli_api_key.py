"""API keys as an operator makes, lists and revokes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from dpdau_assets.core.api_keys import SCOPES, authenticate, hash_of
from dpdau_tests.cli.conftest import Dpdau
from dpdau_tests.dagster.world import stop_the_clock
from resources.storage.api_key_file import ApiKeyFile

TODAY = date(2025, 3, 31)


@pytest.fixture
def dpdau(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dpdau:
    """There is no store yet, and no master secret to begin one with."""
    stop_the_clock(monkeypatch, TODAY)
    return Dpdau(tmp_path, HASH_SALT_SECRET="")


@pytest.fixture
def later(dpdau: Dpdau, monkeypatch: pytest.MonkeyPatch) -> Callable[[date], Dpdau]:
    def move(today: date) -> Dpdau:
        stop_the_clock(monkeypatch, today)
        return dpdau

    return move


def file_of(dpdau: Dpdau) -> ApiKeyFile:
    return ApiKeyFile(dpdau.folder / "data" / "api_keys.json")


def test_a_new_key_is_printed_once_and_opens_what_its_scopes_say(dpdau: Dpdau) -> None:
    made = dpdau("api-key", "new", "shop", "--scope", "ingest", "--scope", "read")
    assert made.code == 0 and made.json.keys() == {"name", "key"} and made.json["name"] == "shop"
    key = authenticate(made.json["key"], file_of(dpdau).read(), TODAY)
    assert not isinstance(key, str) and key.scopes == {"ingest", "read"}
    dpdau("api-key", "list")
    dpdau("api-key", "revoke", "shop")
    assert dpdau.printed.count(made.json["key"]) == 1 and made.json["key"] not in made.said
    assert hash_of(made.json["key"]) not in dpdau.printed


def test_neither_a_ledger_nor_a_master_secret_is_needed(dpdau: Dpdau) -> None:
    assert dpdau("api-key", "list").json == [] and not (dpdau.folder / "data").exists()
    assert dpdau("api-key", "new", "shop", "--scope", "read").code == 0
    assert dpdau("api-key", "list").code == dpdau("api-key", "revoke", "shop").code == 0
    assert {path.name for path in dpdau.folder.rglob("*")} == {"data", "api_keys.json", "api_keys.json.lock"}
    assert dpdau("status", HASH_SALT_SECRET="9c41f07be2d8a6350b7e1c94d2f8a063").code == 0, "a store is begun beside it"


def test_the_list_says_all_of_a_key_but_itself_and_its_hash(later: Callable[[date], Dpdau]) -> None:
    dpdau = later(TODAY)
    dpdau("api-key", "new", "shop", "--scope", "read", "--scope", "ingest", "--expires", "2025-04-30")
    dpdau("api-key", "new", "ops", "--scope", "admin")
    dpdau("api-key", "revoke", "ops")
    shop, ops = dpdau("api-key", "list").json
    assert shop == {
        "id": file_of(dpdau).read()[0].id,
        "name": "shop",
        "scopes": ["ingest", "read"],
        "created_on": "2025-03-31",
        "expires_on": "2025-04-30",
        "state": "valid",
    }
    assert (ops["name"], ops["state"], ops["expires_on"]) == ("ops", "revoked", None)
    assert later(date(2025, 4, 30))("api-key", "list").json[0]["state"] == "valid"
    assert later(date(2025, 5, 1))("api-key", "list").json[0]["state"] == "expired"


def test_keys_are_changed_over_by_two_valid_ones_of_a_name_and_a_third_waits_for_the_first(dpdau: Dpdau) -> None:
    new = ("api-key", "new", "shop", "--scope", "ingest")
    old, young = dpdau(*new).json["key"], dpdau(*new).json["key"]
    first = dpdau("api-key", "list").json[0]["id"]
    refused = dpdau(*new)
    assert refused.code == 4 and refused.json is None and f"`dpdau api-key revoke {first}`" in refused.said
    assert dpdau("api-key", "revoke", first).json == {"revoked": [first]}
    read = file_of(dpdau).read()
    assert authenticate(old, read, TODAY) == "unknown" and authenticate(young, read, TODAY) == read[1]
    assert dpdau(*new).code == 0


def test_a_name_revokes_all_of_its_keys_once_and_an_unknown_one_is_bad_input(dpdau: Dpdau) -> None:
    made = [dpdau("api-key", "new", name, "--scope", "read").json for name in ("shop", "shop", "other")]
    ids = [row["id"] for row in dpdau("api-key", "list").json]
    assert dpdau("api-key", "revoke", "shop").json == {"revoked": ids[:2]}
    again = dpdau("api-key", "revoke", "shop")
    assert (again.code, again.json) == (0, {"revoked": []}) and "revoked before" in again.said
    for unknown in ("nobody", "ffffffff", made[2]["key"]):
        refused = dpdau("api-key", "revoke", "--", unknown)
        assert refused.code == 5 and refused.json is None and unknown not in refused.said
    assert [row["state"] for row in dpdau("api-key", "list").json] == ["revoked", "revoked", "valid"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("shop",), 2, "--scope"),
        (("shop", "--scope", "root"), 2, ", ".join(SCOPES)),
        (("shop", "--scope", "read", "--scope", "READ"), 2, ", ".join(SCOPES)),
        (("shop", "--scope", "read", "--expires", "soon"), 2, "--expires"),
        (("shop", "--scope", "read", "--expires", "2025-03-30"), 5, "is over"),
        (("a shop", "--scope", "read"), 5, "no name for a key"),
    ],
)
def test_what_makes_no_key_says_why_and_writes_nothing(
    arguments: tuple[str, ...], code: int, said: str, dpdau: Dpdau
) -> None:
    refused = dpdau("api-key", "new", *arguments)
    assert (refused.code, refused.json) == (code, None) and said in refused.said
    assert file_of(dpdau).read() == ()


def test_a_file_that_others_can_read_is_a_setting_to_correct(dpdau: Dpdau) -> None:
    kept = str(dpdau.folder / "kept.json")
    assert dpdau("api-key", "new", "shop", "--scope", "read", API_KEYS_FILE=kept).code == 0
    Path(kept).chmod(0o644)
    refused = dpdau("api-key", "list", API_KEYS_FILE=kept)
    assert refused.code == 2 and f"`chmod 600 {kept}`" in refused.said and refused.json is None


def test_its_subcommands_are_in_its_help_and_a_word_that_is_nearly_one_is_answered_with_it(dpdau: Dpdau) -> None:
    dpdau("api-key", "--help")
    assert all(f" {name} " in dpdau.printed for name in ("new", "list", "revoke"))
    mistyped = dpdau("api-key", "revok")
    assert mistyped.code == 2 and "revoke" in mistyped.said
