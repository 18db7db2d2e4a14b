"""`tools/ci_config_guard.py`: secrets that are missing, placeholders or guessable are named, and no value is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau_tests.support.lengths import at_length
from dpdau_tests.support.project import PROJECT, loaded
from resources.storage.api_key_file import ApiKeyFile

SCRIPT = PROJECT / "tools" / "ci_config_guard.py"
COMPOSE = PROJECT / "docker" / "compose.yaml"
SALT = "5b1f0c9a7e4d32865af0b7c1d94e6a83f2075cbe91d84a36"
KEY = "c37a90e15d8b4f62a1c0e7f8935b2d46708ae1fc92d35b64"
PASSWORD = "90d1b7e6c5f4a3820e1d9c8b7a6f5e4d3c2b1a0f9e8d7c6b"
UNFILLED = "{{" + "HASH_SALT_SECRET" + "}}"  # spelled so, this file holds no placeholder
GOOD = {"HASH_SALT_SECRET": SALT, "SERVICE_API_KEY": KEY}


guard = loaded(SCRIPT)


def found(values: dict[str, str], *required: str) -> dict[str, str]:
    """What is wrong, by variable."""
    return {finding.variable: f"{finding.rule}. {finding.remedy}" for finding in guard.findings(values, required)}


def run(*arguments: str, environment: dict[str, str] | None = None, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    command = [sys.executable, str(SCRIPT), *arguments]
    own = {**kept, **(environment or {})}
    return subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True, check=False, timeout=120)


def test_good_secrets_pass_with_sqlite_with_postgresql_and_for_compose() -> None:
    assert found(GOOD) == {}
    assert found({**GOOD, "LEDGER_URL": "sqlite:////data/ledger.sqlite"}) == {}
    assert found({**GOOD, "LEDGER_URL": f"postgresql://dpdau:{PASSWORD}@db:5432/dpdau"}) == {}
    assert found({**GOOD, "POSTGRES_PASSWORD": PASSWORD}, "POSTGRES_PASSWORD") == {}


@pytest.mark.parametrize("name", ["HASH_SALT_SECRET", "SERVICE_API_KEY", "POSTGRES_PASSWORD"])
@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("", "not set"),
        (UNFILLED, "placeholder"),
        ("changeme-changeme-changeme-changeme-1", "placeholder"),
        ("<paste a secret of 32 characters here>", "placeholder"),
        ("your-secret-goes-here-0123456789abcdef", "placeholder"),
        ("a" * 40, "too few different characters"),
        ("0123456789abcdef" * 3, "written again and again"),
        ("12345678901", "bits"),
    ],
)
def test_a_secret_that_is_missing_a_placeholder_or_guessable_is_named_with_its_rule_and_a_remedy(
    name: str, value: str, rule: str
) -> None:
    wrong = found({**GOOD, "POSTGRES_PASSWORD": PASSWORD, name: value})
    assert set(wrong) == {name}
    assert rule in wrong[name] or (name == "SERVICE_API_KEY" and "shorter than 32" in wrong[name])
    assert "openssl rand -hex 32" in wrong[name]


def test_the_secret_of_a_living_store_is_said_to_change_by_rotation_alone() -> None:
    assert "`dpdau rotate-salt` alone" in found({**GOOD, "HASH_SALT_SECRET": "a" * 40})["HASH_SALT_SECRET"]


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("postgresql://dpdau@db/dpdau", "without a password"),
        ("postgresql://dpdau:postgres@db/dpdau", "can be guessed"),
        ("postgresql://dpdau:change%20me%20change%20me%20change%20me@db/dpdau", "placeholder"),
        ("postgresql://dpdau:x@[db/dpdau", "neither a file of SQLite nor a database of PostgreSQL"),
        ("mysql://dpdau:x@db/dpdau", "neither a file of SQLite nor a database of PostgreSQL"),
        ("postgresql://dpdau:x@db:port/dpdau", "neither a file of SQLite nor a database of PostgreSQL"),
        ("postgresql://dpdau:x@db:99999/dpdau", "neither a file of SQLite nor a database of PostgreSQL"),
    ],
)
def test_a_ledger_whose_password_is_missing_or_guessable_is_named(url: str, rule: str) -> None:
    wrong = found({**GOOD, "LEDGER_URL": url})
    assert set(wrong) == {"LEDGER_URL"} and rule in wrong["LEDGER_URL"]


@pytest.mark.parametrize("character", ["/", "@", ":", "?", "#", "%", " ", "+", "é"])
def test_a_database_password_that_would_break_the_address_is_named_and_no_part_of_it_told(character: str) -> None:
    password = f"horse{PASSWORD}{character}battery"
    wrong = found({**GOOD, "POSTGRES_PASSWORD": password})
    assert set(wrong) == {"POSTGRES_PASSWORD"} and "letters, digits and - . _ ~" in wrong["POSTGRES_PASSWORD"]
    assert not [part for part in ("horse", "battery", PASSWORD) if part in str(wrong)]
    assert found({**GOOD, "POSTGRES_PASSWORD": f"horse-{PASSWORD}.battery_~"}) == {}


def test_without_a_service_key_a_file_with_a_valid_key_is_enough_and_one_without_is_not(tmp_path: Path) -> None:
    values = {"HASH_SALT_SECRET": SALT, "DATA_DIR": str(tmp_path)}
    assert set(found(values)) == {"SERVICE_API_KEY"}
    file = ApiKeyFile(tmp_path / "api_keys.json")
    file.add("product", frozenset({"ingest"}), datetime.now(UTC).date())
    assert found(values) == {}
    file.revoke("product", datetime.now(UTC).date())
    assert set(found(values)) == {"SERVICE_API_KEY"}
    assert set(found({"HASH_SALT_SECRET": SALT, "API_KEYS_FILE": str(tmp_path / "none.json")})) == {"SERVICE_API_KEY"}


def test_one_secret_for_two_purposes_is_named() -> None:
    assert found({**GOOD, "SERVICE_API_KEY": SALT})["SERVICE_API_KEY"].startswith("the same as HASH_SALT_SECRET")


def test_settings_that_dpdau_would_refuse_are_named_all_at_once() -> None:
    assert set(found({**GOOD, "GRACE_DAYS": "-1", "TIMEZONE": "Europe/Nowhere"})) == {"GRACE_DAYS", "TIMEZONE"}
    assert set(found({**GOOD, "GRACE_DAYS": "soon", "START_DATE": "today"})) == {"GRACE_DAYS", "START_DATE"}
    assert set(found({**GOOD, "RDP_ORDERS": "two"})) == {"RDP_ORDERS"}


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("GRACE_DAYS", "-1", "a day is published after it has ended; set 0 or more"),
        ("TIMEZONE", "Mars: Olympus; Mons", "not a time zone of the tz database; set one such as Europe/Berlin"),
        ("TRUSTED_PROXIES", "everybody", "names every address, or none; set such as 10.0.0.5 or 10.0.0.0/24"),
        ("RATE_LIMIT_URL", "somewhere", "not an address of Redis; set redis://host:6379/0, or leave it out"),
        ("GRACE_DAYS", "soon", "not of its kind, such as a number, a day or a path"),
    ],
)
def test_the_rule_that_a_setting_breaks_is_told_without_its_value_and_no_command_that_cannot_run_yet(
    name: str, value: str, rule: str
) -> None:
    assert found({**GOOD, name: value}) == {name: f"{rule}. Correct it: docs/settings.md says what it means."}


def test_any_variable_that_is_still_a_placeholder_is_named() -> None:
    assert set(found({**GOOD, "ANYTHING": f"https://{UNFILLED}.example.org"})) == {"ANYTHING"}


def test_a_required_variable_that_is_not_there_is_named() -> None:
    assert set(found(GOOD, "POSTGRES_PASSWORD", "START_DATE")) == {"POSTGRES_PASSWORD", "START_DATE"}


def test_the_examples_of_this_project_fail_until_they_are_filled_in(tmp_path: Path) -> None:
    for example in (".env.example", "docker/env.example"):
        ran = run(str(PROJECT / example), "--files-alone", cwd=tmp_path)
        assert ran.returncode == 1 and "HASH_SALT_SECRET: " in ran.stderr, ran
    text = (PROJECT / "docker" / "env.example").read_text()
    for name, value in {**GOOD, "POSTGRES_PASSWORD": PASSWORD, "START_DATE": "2026-01-01"}.items():
        assert f"\n{name}=\n" in text
        text = text.replace(f"\n{name}=\n", f"\n{name}={value}\n")
    (tmp_path / "filled").write_text(text)
    ran = run("filled", "--files-alone", "--compose", str(COMPOSE), cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    (tmp_path / "filled").write_text(text.replace("START_DATE=2026-01-01\n", ""))
    ran = run("filled", "--files-alone", "--compose", str(COMPOSE), cwd=tmp_path)
    assert ran.returncode == 1 and ran.stderr.startswith("START_DATE: not set."), ran


def deployed(folder: Path, env: str = "", settings_env: str | None = None) -> tuple[str, ...]:
    """The guard's arguments for a copy of compose.yaml with these lines in docker/.env and docker/settings.env."""
    docker = folder / "docker"
    docker.mkdir()
    shutil.copy(COMPOSE, docker)
    needed = {**GOOD, "POSTGRES_PASSWORD": PASSWORD, "START_DATE": "2026-01-01"}
    (docker / ".env").write_text("".join(f"{name}={value}\n" for name, value in needed.items()) + env)
    if settings_env is not None:
        (docker / "settings.env").write_text(settings_env)
    return "docker/.env", "--compose", "docker/compose.yaml", "--files-alone"


def test_the_file_that_compose_hands_on_is_guarded_too_and_may_be_missing(tmp_path: Path) -> None:
    command = deployed(tmp_path)
    assert run(*command, cwd=tmp_path).returncode == 0
    (tmp_path / "docker" / "settings.env").write_text("MAU_WINDOW_DAYS=60\n")
    assert run(*command, cwd=tmp_path).returncode == 0
    (tmp_path / "docker" / "settings.env").write_text("MAU_WINDOW_DAYS=7\n")
    ran = run(*command, cwd=tmp_path)
    assert ran.returncode == 1 and ran.stderr.startswith("MAU_WINDOW_DAYS: gaps inside a month"), ran


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("TIMEZONE", "Set it in docker/.env alone."), ("HASH_SALT_SECRET", "docker/.env"), ("DATA_DIR", "Leave it out.")],
)
def test_a_variable_that_compose_sets_is_told_where_it_stands_in_the_file_that_is_handed_on(
    name: str, remedy: str, tmp_path: Path
) -> None:
    values = {"TIMEZONE": "UTC", "HASH_SALT_SECRET": SALT, "DATA_DIR": "/data/store"}
    ran = run(*deployed(tmp_path, settings_env=f"{name}={values[name]}\nKMV_K=1024\n"), cwd=tmp_path)
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1
    assert (
        ran.stderr.startswith(f"{name}: without effect in settings.env, since compose sets it.")
        and remedy in ran.stderr
    )


@pytest.mark.parametrize(
    ("name", "remedy"), [("KMV_K", "Set it in docker/settings.env."), ("MART_DIR", "Leave it out: compose sets it.")]
)
def test_a_variable_that_compose_does_not_ask_for_is_told_where_it_is_filled_in(
    name: str, remedy: str, tmp_path: Path
) -> None:
    ran = run(*deployed(tmp_path, env=f"{name}=1024\nOTHERS=1\n"), cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr == f"{name}: without effect here, since compose does not ask for it. {remedy}\n"


def test_a_file_that_is_no_compose_file_is_usage(tmp_path: Path) -> None:
    for text in ("services: 3\n", "[", "- a\n", None):
        if text is not None:
            (tmp_path / "compose.yaml").write_text(text)
        ran = run("--compose", "compose.yaml" if text else "none.yaml", cwd=tmp_path)
        assert ran.returncode == 2 and "not a compose file that can be read" in ran.stderr, ran


def test_the_later_file_counts_and_the_environment_before_both(tmp_path: Path) -> None:
    (tmp_path / "one").write_text(f"HASH_SALT_SECRET={SALT}\nSERVICE_API_KEY=short\n")
    (tmp_path / "two").write_text(f"SERVICE_API_KEY={KEY}\n")
    assert run("one", "two", cwd=tmp_path).returncode == 0
    assert run("two", "one", cwd=tmp_path).returncode == 1
    assert run("two", "one", environment={"SERVICE_API_KEY": KEY}, cwd=tmp_path).returncode == 0
    assert run("two", "one", "--files-alone", environment={"SERVICE_API_KEY": KEY}, cwd=tmp_path).returncode == 1
    assert run(cwd=tmp_path).returncode == 1
    assert run(environment=GOOD, cwd=tmp_path).returncode == 0


def test_an_env_file_beside_it_that_was_not_named_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in GOOD.items()))
    assert run(cwd=tmp_path).returncode == 1
    assert run(".env", cwd=tmp_path).returncode == 0


def test_a_file_that_is_not_there_is_usage(tmp_path: Path) -> None:
    ran = run("none.env", cwd=tmp_path)
    assert ran.returncode == 2 and "none.env" in ran.stderr


def test_asking_leaves_the_environment_and_the_folder_of_the_process_as_they_were() -> None:
    before = (dict(os.environ), Path.cwd())
    found({**GOOD, "GRACE_DAYS": "-1"})
    assert (dict(os.environ), Path.cwd()) == before


NAMES = ("HASH_SALT_SECRET", "SERVICE_API_KEY", "POSTGRES_PASSWORD", "TIMEZONE", "SKETCH_IMPL", "ALERT_WEBHOOK")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)), max_size=60)


@pytest.mark.also_long
@settings(
    max_examples=at_length(test=40, ci=400, soak=4000),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    values=st.fixed_dictionaries({name: TEXTS for name in NAMES}),
    marker=st.text("ghjkmnpqvwxyz", min_size=9, max_size=9),
    numbers=st.sampled_from(["-1", "soon", "3", "1e9"]),
    port=st.sampled_from(["", ":5432", ":port"]),
)
def test_no_value_is_ever_printed(values: dict[str, str], marker: str, numbers: str, port: str) -> None:
    """Each value holds letters that stand in no sentence of the guard's own."""
    marked = {name: f"{marker}{value}{marker}" for name, value in values.items()}
    marked["GRACE_DAYS"] = f"{numbers}{marker}"
    marked["RDP_ORDERS"] = f"2,{marker}"
    marked["LEDGER_URL"] = f"postgresql://{marker}:{values['POSTGRES_PASSWORD']}{marker}@db{port}/{marker}"
    marked["START_DATE"] = f"GRACE_DAYS={marker}; DATA_DIR={marker}"
    told = "\n".join(map(str, guard.findings(marked, NAMES)))
    assert told, "START_DATE at least is refused"
    assert marker not in told
