"""A wrong configuration stops with every problem named: variable, value, rule and what to set."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core.budget.settings_check import check
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.settings import Settings
from dpdau_tests.support.lengths import at_length

SECRET = "correct horse battery staple, longer than it needs"


def complaint(settings: Settings) -> str:
    with pytest.raises(BadSetting) as raised:
        check(settings)
    return raised.value.reason


def test_the_defaults_are_feasible_with_and_without_a_secret() -> None:
    check(Settings())
    check(Settings(hash_salt_secret=SECRET))


@pytest.mark.parametrize(
    "good",
    [
        {"dau_mechanism": "gaussian"},
        {"restatements_per_month": 0, "restatement_day": 1},
        {"timezone": "Europe/Berlin"},
        {"grace_days": 0, "restatement_day": 2},
        {"restatement_day": 28},
        {"hash_salt_rotation_days": 30},
        {"start_date": date(2024, 2, 29)},
        {"mau_mechanism": "gaussian", "mau_window_days": 1},
        {"mau_window_days": 31},
        {"mau_window_days": 60},
        {"mau_window_days": 90},
        {"mau_window_days": 120, "hash_salt_rotation_days": 120},
        {"mau_mechanism": "gaussian", "mau_window_days": 60, "epsilon_mau": Fraction(3, 10)},
        {"sketch_impl": "theta"},
        {
            "sketch_impl": "theta",
            "hash_salt_rotation_days": 60,
            "dau_theta0": Fraction(1),
            "mau_theta0": Fraction(1, 64),
        },
        {
            "sketch_impl": "theta",
            "mau_mechanism": "gaussian",
            "epsilon_mau": Fraction(3, 10),
            "hash_salt_rotation_days": 30,
        },
        {"sketch_impl": "kmv", "mau_mechanism": "gaussian", "epsilon_mau": Fraction(379, 1000)},
        {"sketch_impl": "hllpp", "mau_mechanism": "gaussian", "epsilon_mau": Fraction(379, 1000), "dau_level": 51},
        {"sketch_impl": "hllpp", "mau_mechanism": "laplace", "epsilon_mau": Fraction(5, 100)},
    ],
)
def test_what_the_rules_allow_is_accepted(good: dict[str, object]) -> None:
    check(Settings(**good))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"w_bound": 3}, "W_BOUND=3"),
        ({"w_bound": 1}, "set W_BOUND=2"),
        ({"mau_window_days": 7}, "MAU_WINDOW_DAYS=7: gaps inside a month"),
        ({"mau_window_days": 29}, "MAU_MECHANISM=gaussian"),
        ({"mau_window_days": 29}, "set MAU_WINDOW_DAYS=30 or more"),
        ({"mau_window_days": 91}, "HASH_SALT_ROTATION_DAYS=90: a salt must last for a whole window of 91 days"),
        ({"mau_window_days": 0, "mau_mechanism": "gaussian"}, "MAU_WINDOW_DAYS=0"),
        ({"sketch_impl": "bloom"}, "must be one of set, theta, kmv, hllpp"),
        ({"sketch_impl": "kmv"}, "SKETCH_IMPL=kmv: its statistic changes with other users' data"),
        ({"sketch_impl": "hllpp"}, "set SKETCH_IMPL=theta, or MAU_MECHANISM=gaussian with EPSILON_MAU=0.379 or less"),
        ({"sketch_impl": "theta", "hash_salt_rotation_days": 59}, "HASH_SALT_ROTATION_DAYS=59: theta samples users"),
        ({"sketch_impl": "theta", "mau_window_days": 61}, "set 91 or more, or SKETCH_IMPL=set"),
        ({"dau_theta0": Fraction(1, 60)}, "DAU_THETA0=1/60: a sampling threshold is a power of two"),
        ({"mau_theta0": Fraction(2)}, "MAU_THETA0=2: a sampling threshold is a power of two from 2**-32 to 1"),
        ({"mau_theta0": Fraction(1, 2**33)}, "MAU_THETA0=1/8589934592"),
        ({"hll_registers": 1000}, "HLL_REGISTERS=1000: registers are a power of two from 16 to 262144"),
        ({"hll_registers": 8}, "HLL_REGISTERS=8"),
        ({"dau_level": 0}, "DAU_LEVEL=0: registers have ranks from 1 to 51"),
        ({"mau_level": 52}, "MAU_LEVEL=52"),
        ({"kmv_k": 15}, "KMV_K=15: a KMV sketch keeps 16 to 67108864 keys"),
        ({"dau_mechanism": "gaussian_stream"}, "DAU_MECHANISM=gaussian_stream"),
        ({"mau_mechanism": "gaussian_shared"}, "MAU_MECHANISM=gaussian_shared"),
        ({"dau_budget_total": Fraction(0)}, "DAU_BUDGET_TOTAL=0"),
        ({"mau_budget_total": Fraction(-1)}, "MAU_BUDGET_TOTAL=-1"),
        ({"epsilon_dau": Fraction(-3, 10)}, "EPSILON_DAU=-0.3"),
        ({"epsilon_mau": Fraction(0)}, "EPSILON_MAU=0"),
        ({"delta": 0.0}, "DELTA=0"),
        ({"delta": 0.002}, "DELTA=0.002"),
        ({"delta": float("nan")}, "DELTA=nan"),
        ({"advanced_delta": 1.0}, "ADVANCED_DELTA=1"),
        ({"hash_salt_rotation_days": 29}, "HASH_SALT_ROTATION_DAYS=29"),
        ({"restatements_per_month": 2}, "RESTATEMENTS_PER_MONTH=2"),
        ({"restatement_day": 2}, "RESTATEMENT_DAY=2"),
        ({"restatement_day": 29}, "RESTATEMENT_DAY=29"),
        ({"grace_days": 4}, "RESTATEMENT_DAY=5"),
        ({"grace_days": -1}, "GRACE_DAYS=-1"),
        ({"timezone": "Mars/Olympus"}, "TIMEZONE=Mars/Olympus"),
        ({"timezone": "America"}, "TIMEZONE=America"),
        ({"timezone": "../etc/passwd"}, "TIMEZONE="),
        ({"timezone": ""}, "TIMEZONE="),
        ({"naive_zone": "Mars/Olympus"}, "NAIVE_ZONE=Mars/Olympus: not a time zone"),
        ({"naive_zone": ""}, "NAIVE_ZONE="),
        ({"user_id_normalize": ("trim", "upper")}, "USER_ID_NORMALIZE=trim,upper: ids are normalised by any of nfc"),
        ({"user_id_normalize": ("NFC",)}, "USER_ID_NORMALIZE=NFC"),
        ({"rdp_orders": (1, 2)}, "RDP_ORDERS=1,2"),
        ({"rdp_orders": ()}, "RDP_ORDERS="),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(wrong: dict[str, object], says: str) -> None:
    assert says in complaint(Settings(**wrong))  # type: ignore[arg-type]


def test_the_largest_epsilon_that_is_named_fits_and_the_next_one_does_not() -> None:
    beyond = Settings(sketch_impl="kmv", mau_mechanism="gaussian", epsilon_mau=Fraction(380, 1000))
    assert "EPSILON_MAU=0.38: the budget runs out on" in complaint(beyond)


def test_all_problems_are_listed_at_once_one_on_a_line() -> None:
    settings = Settings(w_bound=4, delta=1.0, sketch_impl="hllpp", hash_salt_secret="short", timezone="Nowhere")
    lines = complaint(settings).splitlines()
    variables = [line.partition("=")[0] for line in lines]
    assert variables == ["SKETCH_IMPL", "W_BOUND", "DELTA", "TIMEZONE", "HASH_SALT_SECRET"]
    assert all(":" in line and "; set " in line for line in lines)


def test_a_short_secret_is_refused_without_being_shown() -> None:
    secret = "too-short-a-secret"
    with pytest.raises(BadSetting, match="HASH_SALT_SECRET") as raised:
        check(Settings(hash_salt_secret=secret))
    assert secret not in str(raised.value)
    assert secret not in repr(raised.value.fields)
    assert "32 characters" in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////data/ledger.sqlite",
        "sqlite:///ledger.sqlite",
        "postgresql://dpdau@db/dpdau",
        "postgres://dpdau:p%40ss%2Fword-._~@db.example.org:5432/dpdau",
        "postgresql://db/dpdau",
        "postgresql://dpdau:word@[::1]:5432/dpdau?options=-csearch_path%3Dledger",
        "postgresql://dpdau:word@/dpdau?host=/var/run/postgresql",
    ],
)
def test_an_address_of_a_ledger_is_accepted(url: str) -> None:
    check(Settings(ledger_url=url))


@pytest.mark.parametrize(
    "url",
    [
        "mysql://dpdau:horse@db/dpdau",
        "postgresql://dpdau:horse@db:port/dpdau",
        "postgresql://dpdau:horse@db:0/dpdau",
        "postgresql://dpdau:horse@db:70000/dpdau",
        "postgresql://dpdau:horse@db",
        "postgresql://dpdau:horse@db/",
        "postgresql://dpdau:two horse@db/dpdau",
        "postgresql://dpdau:horse@db/dpdau#part",
        "postgresql:///dpdau",
        "sqlite://",
        "",
    ],
)
def test_what_is_no_address_of_a_ledger_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(BadSetting, match=r"LEDGER_URL=\.\.\.: neither a file of SQLite nor") as raised:
        check(Settings(ledger_url=url))
    assert "horse@" not in str(raised.value) + repr(raised.value.fields)
    assert "user and password percent-encoded" in str(raised.value)


@pytest.mark.also_long
@settings(max_examples=at_length(test=200, ci=2000, soak=20_000), deadline=None)
@given(
    st.text("abc/@:?#% \\[]'1234567890.-_~&=", min_size=1, max_size=12),
    st.sampled_from("/@:?#[] \\"),
    st.text("abc/@:?#% []1234567890.-_~&=", max_size=12),
)
def test_a_password_that_is_not_percent_encoded_is_never_taken_for_a_host_a_port_or_a_database(
    before: str, character: str, after: str
) -> None:
    with pytest.raises(BadSetting, match=r"LEDGER_URL=\.\.\.: ") as raised:
        check(Settings(ledger_url=f"postgresql://dpdau:{before}{character}{after}@postgres:5432/dpdau"))
    assert raised.value.fields["variables"] == ["LEDGER_URL"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"timezone": "a: b; c"}, "not a time zone of the tz database; set one such as Europe/Berlin"),
        ({"cors_origins": ("*: x; y",)}, "an origin is http or https, a host and perhaps a port, and none stands for"),
        ({"rate_limit_url": "redis: ; x"}, "not an address of Redis; set redis://host:6379/0, or leave it out"),
    ],
)
def test_the_rules_are_told_apart_from_the_values_that_break_them(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(BadSetting) as raised:
        check(Settings(**wrong))  # type: ignore[arg-type]
    (rule,) = raised.value.fields["rules"]  # type: ignore[misc]
    assert rule.startswith(told)


def test_a_schedule_that_does_not_fit_is_refused_with_the_day_it_would_run_out() -> None:
    said = complaint(Settings(dau_mechanism="laplace"))
    assert said.startswith("EPSILON_DAU=0.3: the budget runs out on 2025-01-11")
    assert "set DAU_MECHANISM=gaussian_shared" in said


def test_the_calendar_is_not_asked_about_values_that_are_wrong_by_themselves() -> None:
    wrong = replace(Settings(dau_mechanism="laplace"), delta=0.0)
    assert "runs out" not in complaint(wrong)


def test_a_wrong_configuration_ends_with_the_exit_code_of_misuse() -> None:
    with pytest.raises(BadSetting) as raised:
        check(Settings(w_bound=0))
    assert raised.value.exit_code == 2
    assert raised.value.fields["variables"] == ["W_BOUND"]
