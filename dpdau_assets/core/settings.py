"""One frozen Settings, validated as a whole: a wrong value stops the start and says which, why, and what to set."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Literal

from dpdau_assets.core.user_ids import NORMALIZATIONS, Normalization

Metric = Literal["dau", "mau"]


@dataclass(frozen=True)
class Settings:
    """What an operator may set. Field names are the environment's names in lower case.

    Budgets and per-release epsilons are exact fractions, so that ten times 0.3 is 3.0 and not a hair more.
    """

    data_dir: Path = Path("data")
    start_date: date = date(2025, 1, 1)
    timezone: str = "UTC"
    naive_zone: str = "UTC"
    user_id_normalize: tuple[Normalization, ...] = ()
    sketch_impl: str = "set"
    dau_theta0: Fraction | None = None
    mau_theta0: Fraction | None = None
    kmv_k: int = 1 << 16
    hll_registers: int = 1 << 14
    dau_level: int | None = None
    mau_level: int | None = None
    mau_window_days: int = 30
    w_bound: int = 2
    dau_mechanism: str = "gaussian_shared"
    mau_mechanism: str = "gaussian_stream"
    dau_budget_total: Fraction = Fraction(3)
    mau_budget_total: Fraction = Fraction(7, 2)
    delta: float = 1e-6
    epsilon_dau: Fraction = Fraction(3, 10)
    epsilon_mau: Fraction = Fraction(1, 2)
    restatements_per_month: int = 1
    restatement_day: int = 5
    grace_days: int = 1
    hash_salt_secret: str | None = field(default=None, repr=False)
    hash_salt_rotation_days: int = 90
    ledger_url: str | None = field(default=None, repr=False)
    retention_days: int | None = None
    max_rejected_share: Fraction = Fraction(1, 100)
    quarantine_days: int = 30
    erasure_mark: str = "touched"
    erasure_guard_share: Fraction = Fraction(1, 5)
    dagster_home: Path | None = None
    sources_file: Path | None = None
    landing_dir: Path | None = None
    mart_dir: Path | None = None
    alert_webhook: str | None = field(default=None, repr=False)
    digest_webhook: str | None = field(default=None, repr=False)
    smtp_url: str | None = field(default=None, repr=False)
    admin_email: tuple[str, ...] = ()
    rdp_orders: tuple[int, ...] = (2, 4, 8, 16, 32)
    advanced_delta: float = 1e-7
    default_seed: int = 20251009
    service_api_key: str | None = field(default=None, repr=False)
    api_keys_file: Path | None = None
    rate_limit_per_minute: int = 600
    rate_limit_events_per_minute: int = 1_000_000
    rate_limit_url: str | None = field(default=None, repr=False)
    metrics_counts: str = "off"
    docs_url: str | None = None
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()

    def window_days(self, metric: Metric) -> int:
        """How many days a release of this metric reads."""
        return 1 if metric == "dau" else self.mau_window_days

    def mechanism(self, metric: Metric) -> str:
        """The mechanism's name, as configured."""
        return self.dau_mechanism if metric == "dau" else self.mau_mechanism

    def cap(self, metric: Metric) -> Fraction:
        """The metric's epsilon per user-month, at `delta`."""
        return self.dau_budget_total if metric == "dau" else self.mau_budget_total

    def epsilon_each(self, metric: Metric) -> Fraction:
        """Epsilon of one release under an independent mechanism."""
        return self.epsilon_dau if metric == "dau" else self.epsilon_mau

    def theta0(self, metric: Metric) -> Fraction | None:
        """The sampling threshold of the metric's sketches, if one is set."""
        return self.dau_theta0 if metric == "dau" else self.mau_theta0

    def level(self, metric: Metric) -> int | None:
        """The rank from which registers count for this metric, if one is set."""
        return self.dau_level if metric == "dau" else self.mau_level

    def fixed_settings(self) -> dict[str, str]:
        """What the keys and files of a living store were laid out by, and can never be changed under it."""
        return {
            "START_DATE": self.start_date.isoformat(),
            "TIMEZONE": self.timezone,
            "NAIVE_ZONE": self.naive_zone,
            "USER_ID_NORMALIZE": self._normalize_in_order(),
            "MAU_WINDOW_DAYS": str(self.mau_window_days),
            "HASH_SALT_ROTATION_DAYS": str(self.hash_salt_rotation_days),
        }

    def _normalize_in_order(self) -> str:
        """Each once, in one order: how it was written says nothing."""
        return ",".join(how for how in NORMALIZATIONS if how in self.user_id_normalize) or "none"
