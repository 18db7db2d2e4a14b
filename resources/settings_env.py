"""The only reader of the environment (and of `.env`): text in, one checked Settings out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dpdau_assets.core.budget.settings_check import check
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.settings import Settings

SECRETS = {
    "hash_salt_secret",
    "ledger_url",
    "alert_webhook",
    "digest_webhook",
    "smtp_url",
    "service_api_key",
    "rate_limit_url",
}
_LISTS = ("user_id_normalize", "admin_email", "cors_origins", "trusted_proxies")
_SQLITE_FILE = "sqlite:///"


class Environment(BaseSettings):
    """The variables by name and type; their defaults are those of core Settings, their rules are checked there."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore")

    data_dir: Path = Settings.data_dir
    start_date: date = Settings.start_date
    timezone: str = Settings.timezone
    naive_zone: str = Settings.naive_zone
    user_id_normalize: Annotated[str, NoDecode] = ""
    sketch_impl: str = Settings.sketch_impl
    dau_theta0: str | None = None
    mau_theta0: str | None = None
    kmv_k: int = Settings.kmv_k
    hll_registers: int = Settings.hll_registers
    dau_level: int | None = None
    mau_level: int | None = None
    mau_window_days: int = Settings.mau_window_days
    w_bound: int = Settings.w_bound
    dau_mechanism: str = Settings.dau_mechanism
    mau_mechanism: str = Settings.mau_mechanism
    dau_budget_total: Decimal = Decimal("3.0")
    mau_budget_total: Decimal = Decimal("3.5")
    delta: float = Settings.delta
    epsilon_dau: Decimal = Decimal("0.3")
    epsilon_mau: Decimal = Decimal("0.5")
    restatements_per_month: int = Settings.restatements_per_month
    restatement_day: int = Settings.restatement_day
    grace_days: int = Settings.grace_days
    hash_salt_secret: SecretStr | None = None
    hash_salt_rotation_days: int = Settings.hash_salt_rotation_days
    ledger_url: SecretStr | None = None
    rdp_orders: Annotated[str, NoDecode] = ",".join(map(str, Settings.rdp_orders))
    advanced_delta: float = Settings.advanced_delta
    default_seed: int = Settings.default_seed
    retention_days: int | None = None
    max_rejected_share: Decimal = Decimal("0.01")
    quarantine_days: int = Settings.quarantine_days
    erasure_mark: str = Settings.erasure_mark
    erasure_guard_share: Decimal = Decimal("0.2")
    dagster_home: Path | None = None
    sources_file: Path | None = None
    landing_dir: Path | None = None
    mart_dir: Path | None = None
    alert_webhook: SecretStr | None = None
    digest_webhook: SecretStr | None = None
    smtp_url: SecretStr | None = None
    admin_email: Annotated[str, NoDecode] = ""
    service_api_key: SecretStr | None = None
    api_keys_file: Path | None = None
    rate_limit_per_minute: int = Settings.rate_limit_per_minute
    rate_limit_events_per_minute: int = Settings.rate_limit_events_per_minute
    rate_limit_url: SecretStr | None = None
    metrics_counts: str = Settings.metrics_counts
    docs_url: str | None = None
    cors_origins: Annotated[str, NoDecode] = ""
    trusted_proxies: Annotated[str, NoDecode] = ""


def read_settings(tried: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process, checked as a whole; what is `tried`, by name, stands in for the environment.

    Raises BadSetting with every variable at once that is not of its type, or, if all are, that breaks a rule.
    """
    settings = _parse(tried or {})
    check(settings)
    return settings


def _parse(tried: Mapping[str, Any]) -> Settings:
    try:
        values = Environment(**{name.lower(): value for name, value in tried.items()}).model_dump()
    except ValidationError as error:
        raise BadSetting(_describe(error), "Correct the variables named, in the environment or in .env.") from None
    revealed: dict[str, Any] = {name: _reveal(value) for name, value in values.items()}
    revealed["rdp_orders"] = _orders(values["rdp_orders"])
    revealed |= {name: tuple(filter(None, map(str.strip, values[name].split(",")))) for name in _LISTS}
    if revealed["user_id_normalize"] == ("none",):  # as errors call it
        revealed["user_id_normalize"] = ()
    for name in ("dau_theta0", "mau_theta0"):
        revealed[name] = None if values[name] is None else _fraction(name, values[name])
    return Settings(**revealed)


def _reveal(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return Fraction(value) if isinstance(value, Decimal) else value


def _orders(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(order) for order in text.split(","))
    except ValueError:
        raise BadSetting(f"RDP_ORDERS={text}: not whole numbers.", "Write them as 2,4,8.") from None


def _fraction(name: str, text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise BadSetting(f"{name.upper()}={text}: not a fraction.", "Write it as 1/64 or 0.015625.") from None


def _describe(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        name = str(problem["loc"][0])
        shown = "..." if name in SECRETS else problem["input"]
        problems.append(f"{name.upper()}={shown}: {problem['msg']}")
    return "; ".join(problems) + "."


def variable(name: str) -> str | None:
    """What a variable that somebody named holds; None where it is not set, or empty."""
    return os.environ.get(name) or None


def variable_that_holds(field: str, value: str | None) -> str | None:
    """The name of the environment's variable for this setting, if it holds this value: `.env` may, or nothing."""
    return next((name for name, held in os.environ.items() if name.lower() == field and held == value), None)


def is_held_by_a_variable(value: str) -> bool:
    """Whether some variable of the environment has this value, whatever its name."""
    return value in os.environ.values()


def environment_for(settings: Settings) -> dict[str, str]:
    """The environment of a child process which has these settings, whatever folder it runs in, and Dagster's home.

    The folder must have no .env: of what is not set, nothing is said.
    """
    read = {name.upper(): _text(value) for name, value in Environment().model_dump(exclude_none=True).items()}
    others = {name: value for name, value in os.environ.items() if name.upper() not in read}
    folders = [folder for folder in others.pop("PYTHONPATH", "").split(os.pathsep) if folder]
    modules = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, folders))} if folders else {}
    return {**others, **modules, **read, "DAGSTER_HOME": str(dagster_home(settings))}


def _text(value: object) -> str:
    """A setting as text for an environment, which means the same in every folder."""
    if isinstance(value, Path):
        return str(value.resolve())
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    file = text.removeprefix(_SQLITE_FILE)
    return text if file == text else f"{_SQLITE_FILE}{Path(file).resolve()}"


def dagster_home(settings: Settings) -> Path:
    """DAGSTER_HOME, or a folder in the data directory, which then is DAGSTER_HOME: dagster.yaml names storage by it."""
    home = (settings.dagster_home or settings.data_dir / "dagster_home").resolve()
    os.environ["DAGSTER_HOME"] = str(home)
    return home
