"""When `dpdau serve` does not start: before it listens on anything or makes a file, and with what to do about it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from dpdau_tests.cli.conftest import Answer, Dpdau
from dpdau_tests.dagster.world import stop_the_clock
from resources.storage.api_key_file import ApiKeyFile

TODAY = date(2025, 2, 8)
KEY = "0f6d1c9b8a7e4f32b5d16a90c3e8f7d2415b6a09"


@pytest.fixture
def dpdau(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dpdau:
    stop_the_clock(monkeypatch, TODAY)
    return Dpdau(tmp_path)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def require_refused(answer: Answer, *said: str) -> None:
    assert answer.code == 2 and answer.json is None, answer
    for words in said:
        assert words in answer.said, answer.said


def test_without_any_key_nobody_could_ask_and_nothing_is_started(dpdau: Dpdau) -> None:
    require_refused(dpdau("serve"), "no key that is valid", "dpdau api-key new", "SERVICE_API_KEY")
    require_refused(dpdau("serve", SERVICE_API_KEY=""), "no key that is valid")
    assert not (dpdau.folder / "data").exists()


def test_keys_that_are_all_revoked_or_expired_are_none(dpdau: Dpdau) -> None:
    file = ApiKeyFile(dpdau.folder / "data" / "api_keys.json")
    file.add("old", frozenset({"read"}), date(2025, 1, 1), date(2025, 2, 7))
    file.add("gone", frozenset({"read"}), TODAY)
    file.revoke("gone", TODAY)
    before = {path: path.read_bytes() for path in dpdau.folder.rglob("*") if path.is_file()}
    require_refused(dpdau("serve"), "no key that is valid")
    assert {path: path.read_bytes() for path in dpdau.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("changeme", "placeholder"),
        ("your-api-key-goes-here-0123456789abcdef", "placeholder"),
        ("<paste the key here, please: 32 characters>", "placeholder"),
        ("{{SERVICE_API" + "_KEY}}0f6d1c9b8a7e4f32b5d16a", "placeholder"),
        (KEY[:31], "shorter than 32 characters"),
        ("0" * 40, "can be guessed"),
        ("0123456789abcdef" * 4, "can be guessed"),
        (f"{KEY} {KEY}", "ASCII without spaces"),
        (f"{KEY}é", "ASCII without spaces"),
        (KEY * 10, "more than 256 characters"),
    ],
)
def test_a_key_that_could_be_guessed_or_sent_by_nobody_is_refused_and_not_repeated(
    dpdau: Dpdau, key: str, why: str
) -> None:
    answer = dpdau("serve", SERVICE_API_KEY=key)
    require_refused(answer, "SERVICE_API_KEY", why, "openssl rand -hex 32")
    assert key not in dpdau.printed
    assert not (dpdau.folder / "data").exists()


def test_a_good_key_on_file_does_not_make_up_for_a_bad_one_in_the_environment(dpdau: Dpdau) -> None:
    ApiKeyFile(dpdau.folder / "data" / "api_keys.json").add("good", frozenset({"read"}), TODAY)
    require_refused(dpdau("serve", SERVICE_API_KEY="changeme"), "placeholder")


def test_without_the_master_secret_nothing_could_be_taken_in(dpdau: Dpdau) -> None:
    require_refused(dpdau("serve", SERVICE_API_KEY=KEY, HASH_SALT_SECRET=""), "HASH_SALT_SECRET is not set")
    assert not (dpdau.folder / "data").exists()


def test_a_port_that_somebody_listens_on_is_refused_before_a_store_is_opened(dpdau: Dpdau, taken: int) -> None:
    answer = dpdau("serve", "--port", str(taken), SERVICE_API_KEY=KEY)
    require_refused(answer, f"port {taken}")
    assert not (dpdau.folder / "data").exists()


@pytest.mark.parametrize("option", ["--tls-cert", "--tls-key"])
def test_a_certificate_without_its_key_is_refused_and_a_key_without_its_certificate(dpdau: Dpdau, option: str) -> None:
    file = dpdau.folder / "server.pem"
    file.write_text("")
    answer = dpdau("serve", option, str(file), SERVICE_API_KEY=KEY)
    require_refused(answer, "Give both, --tls-cert and --tls-key, or neither.")
    require_refused(dpdau("serve", option, str(file) + ".missing", SERVICE_API_KEY=KEY), "does not exist")
    assert not (dpdau.folder / "data").exists()


@pytest.mark.parametrize("options", [("--port", "0"), ("--port", "65536"), ("--workers", "0"), ("--workers", "65")])
def test_ports_and_workers_have_their_range(dpdau: Dpdau, options: tuple[str, ...]) -> None:
    require_refused(dpdau("serve", *options, SERVICE_API_KEY=KEY), f"'{options[0]}': Input should be")
    assert not (dpdau.folder / "data").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("RATE_LIMIT_EVENTS_PER_MINUTE", "many"),
        ("METRICS_COUNTS", "yes"),
        ("TRUSTED_PROXIES", "not an address"),
        ("CORS_ORIGINS", "javascript:x"),
    ],
)
def test_a_setting_of_the_api_that_is_wrong_is_named(dpdau: Dpdau, name: str, value: str) -> None:
    require_refused(dpdau("serve", SERVICE_API_KEY=KEY, **{name: value}), name)
