"""What an operator sees of the resources, what each of them configures, and who asks for which."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import UTC, date, datetime, time
from fractions import Fraction
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap, ResourceSnap
from dagster_shared.serdes import serialize_value

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete_all
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.checks import CHECKS
from dpdau_assets.core.settings import Settings
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.checks import ASKED_OF
from dpdau_assets.orchestration.names import REBUILD_DAYS
from dpdau_assets.orchestration.project import ASSETS, RESOURCES, NotAsked, Project
from dpdau_tests.conftest import SECRET, prepare, put
from dpdau_tests.dagster.world import World, definitions_under, erase, resources_of
from dpdau_tests.support.project import PROJECT
from resources.reading.landing_files import LandingFiles
from resources.settings_env import Environment, read_settings
from resources.store import open_store
from resources.wiring import UNDER, resources_under

START = date(2025, 1, 1)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
HIDDEN = {
    "HASH_SALT_SECRET": SECRET,
    "LEDGER_URL": "postgresql://dpdau:word-of-the-ledger@nowhere/dpdau",
    "ALERT_WEBHOOK": "https://hooks.example.org/token-of-the-webhook",
    "DIGEST_WEBHOOK": "https://hooks.example.org/token-of-the-digest",
    "SMTP_URL": "smtp://dpdau:word-of-the-mail@nowhere",
}
"""Each is a secret, or holds one."""


def pages(settings: Settings) -> dict[str, ResourceSnap]:
    """What Dagster's UI is told of each resource."""
    snapshot = RepositorySnap.from_def(build_definitions(settings).get_repository_def())
    return {one.name: one for one in snapshot.resources or ()}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment of an operator with a data directory and a master secret, in a folder where `.env` is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Environment.model_config, "env_file", ".env")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HASH_SALT_SECRET", SECRET)
    return monkeypatch


# --- What is shown -----------------------------------------------------------------------------------------------


def test_every_resource_and_each_of_its_fields_says_what_it_is_for() -> None:
    shown = pages(Settings())
    assert shown.keys() == set(RESOURCES)
    for name, page in shown.items():
        assert page.resource_snapshot.description, name
        assert all(field.description for field in page.config_field_snaps), name
    dependent = {name for name, page in shown.items() if page.nested_resources}
    for name in dependent:
        model: Any = resources_under(Settings())[name]
        assert model.__class__.model_fields["accountant"].description, name
    assert shown["accountant"].parent_resources == {name: "accountant" for name in dependent}
    assert dependent == {"erasure_ledger", "state", "sketches", "events", "mart", "reports", "alerts"}


def test_a_page_says_the_settings_that_the_resource_works_under() -> None:
    shown = pages(Settings(dau_budget_total=Fraction(29, 10), sketch_impl="kmv"))
    said = {name: str(page.resource_snapshot.description) for name, page in shown.items()}
    assert "- `DAU_BUDGET_TOTAL` = 2.9: the ε" in said["accountant"]
    assert "- `SKETCH_IMPL` = kmv:" in said["sketches"] and "THETA0" not in said["sketches"]
    known = {field.name for field in fields(Settings)}
    assert {name for names in UNDER.values() for name in names} <= known - {one.lower() for one in HIDDEN}


def test_no_secret_is_in_what_dagster_is_told_of_the_project(environment: pytest.MonkeyPatch) -> None:
    """Nor where it comes from: of what the environment holds the page names the variable, of `.env` nothing."""
    fields_of = {"hash_salt_secret": "accountant", "ledger_url": "accountant"}
    fields_of |= dict.fromkeys(("alert_webhook", "digest_webhook", "smtp_url"), "alerts")
    environment.setenv("ADMIN_EMAIL", "privacy@example.org")
    for name, value in HIDDEN.items():
        environment.setenv(name, value)
    from_environment = read_settings()
    for name in HIDDEN:
        environment.delenv(name)
    Path(".env").write_text("".join(f"{name}={value}\n" for name, value in HIDDEN.items()))
    assert read_settings() == from_environment
    for is_set in (True, False):
        if is_set:
            for name, value in HIDDEN.items():
                environment.setenv(name, value)
        told = RepositorySnap.from_def(build_definitions(from_environment).get_repository_def())
        text = serialize_value(told)
        assert not any(word in text for word in (SECRET, "word-of-the-ledger", "word-of-the-mail", "token-of-the"))
        assert all((f'"{name}"' in text) == is_set for name in HIDDEN)
        for name in HIDDEN:
            environment.delenv(name, raising=False)
    shown = pages(from_environment)
    assert all(shown[page].configured_values[field] == "null" for field, page in fields_of.items())


def test_the_page_of_the_docs_has_every_resource_with_its_fields_and_what_each_asset_asks_for() -> None:
    page = (PROJECT / "docs" / "dagster.md").read_text()
    shown = pages(Settings())
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", page, re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", told)) - {"accountant"} for name, told in rows} == {
        name: {field.name for field in found.config_field_snaps} for name, found in shown.items()
    }
    assert {name for name, told in rows if "follows `accountant`" in told} == {
        name for name, found in shown.items() if found.nested_resources
    }
    definitions = build_definitions(Settings())
    asked = re.findall(r"^\| `(\w+)` \| (`[^|]*`) \|$", page, re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", told)) for name, told in asked} == {
        name: set(definitions.get_assets_def(name).required_resource_keys) - {"io_manager"} for name in ASSETS
    }


# --- What is configured ------------------------------------------------------------------------------------------


def build_a_day(
    definitions: dg.Definitions, config: dict[str, Any] | None = None, *, raise_on_error: bool = False
) -> dg.ExecuteInProcessResult:
    """In a run with what the definitions would hand it, and perhaps other values at launch."""
    run_config = {**QUIET, "resources": config or {}, "ops": {"build_many_days": {"config": {"days": [str(START)]}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_job_def(REBUILD_DAYS)
        return job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=raise_on_error)


def refusal(config: dict[str, Any]) -> BadSetting:
    """Why the resources of such a launch are not made."""
    with pytest.raises(Exception) as refused:
        build_a_day(build_definitions(read_settings()), {"accountant": {"config": config}}, raise_on_error=True)
    assert isinstance(refused.value.__cause__, BadSetting)
    return refused.value.__cause__


def test_all_parts_of_a_run_are_of_the_store_that_is_named_at_its_launch(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = open_store(read_settings())
    other = open_store(replace(read_settings(), data_dir=tmp_path / "other"))
    for store in (usual, other):
        put(store, [("somebody", START)])
    config = {"accountant": {"config": {"data_dir": str(tmp_path / "other")}}}
    assert build_a_day(build_definitions(read_settings()), config).success
    assert other.accountant.processed() == {START} and not other.events.inbox.batches()
    assert usual.accountant.processed() == set() and usual.events.inbox.batches()
    assert [day for day, _ in other.state.sketches.stored()] == [START]


@pytest.mark.parametrize("named", [("data_dir",), ("ledger_url", "hash_salt_secret")], ids="+".join)
def test_a_launch_that_names_a_folder_and_a_ledger_of_two_stores_changes_neither(
    named: tuple[str, ...], environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_each = {name: f"sqlite:///{tmp_path}/{name}.sqlite" for name in ("usual", "other")}
    environment.setenv("LEDGER_URL", of_each["usual"])
    usual = open_store(read_settings())
    others = replace(read_settings(), data_dir=tmp_path / "other", ledger_url=of_each["other"])
    other = open_store(others)
    for store in (usual, other):
        put(store, [("somebody", START)])
    environment.setenv("OTHER_LEDGER", of_each["other"])
    values = {
        "data_dir": str(others.data_dir),
        "ledger_url": {"env": "OTHER_LEDGER"},
        "hash_salt_secret": {"env": "HASH_SALT_SECRET"},
    }
    assert "is of another store than the ledger" in str(refusal({name: values[name] for name in named}))
    for store in (usual, other):
        assert store.accountant.processed() == set() and store.events.inbox.batches()
    both = {"accountant": {"config": {name: values[name] for name in ("data_dir", "ledger_url")}}}
    assert build_a_day(build_definitions(read_settings()), both).success
    assert other.accountant.processed() == {START} and usual.accountant.processed() == set()


@pytest.mark.parametrize("field", ["ledger_url", "hash_salt_secret"])
@pytest.mark.parametrize("is_right", [False, True])
def test_a_secret_that_is_typed_into_a_launch_is_refused_and_not_repeated(
    field: str, is_right: bool, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The right one most of all: it would stay in the run's configuration."""
    environment.setenv("LEDGER_URL", f"sqlite:///{tmp_path}/word-of-the-launch.sqlite")
    store = open_store(read_settings())
    put(store, [("somebody", START)])
    right = {"ledger_url": os.environ["LEDGER_URL"], "hash_salt_secret": SECRET}[field]
    typed = right if is_right else "sqlite:////nowhere/word-of-the-launch.sqlite"
    said = str(refusal({field: typed}))
    assert f"{field} was typed into the launch" in said and typed not in said
    assert store.accountant.processed() == set()


@pytest.mark.parametrize("field", ["alert_webhook", "digest_webhook", "smtp_url"])
def test_an_address_that_is_typed_into_a_launch_is_refused_and_one_that_a_variable_holds_is_taken(
    field: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SMTP_URL", "smtp://localhost")
    environment.setenv("ADMIN_EMAIL", "privacy@example.org")
    environment.setenv("ANOTHER", HIDDEN[field.upper()])
    settings = read_settings()
    alerts = resources_under(settings)["alerts"]
    accountant, context = open_store(settings).accountant, dg.build_init_resource_context()
    typed = {"accountant": accountant, field: HIDDEN[field.upper()]}
    assert alerts.__class__(**typed).create_resource(context)
    environment.delenv("ANOTHER")
    with pytest.raises(BadSetting, match=f"{field} was typed into the launch") as refused:
        alerts.__class__(**typed).create_resource(context)
    assert "-of-the-" not in str(refused.value)


@pytest.mark.parametrize("held_by", ["the environment", ".env"])
def test_runs_have_the_secret_wherever_it_comes_from_and_the_store_that_is_open(
    held_by: str, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if held_by == ".env":
        environment.delenv("HASH_SALT_SECRET")
        (tmp_path / ".env").write_text(f"HASH_SALT_SECRET={SECRET}\n")
    settings = read_settings()
    store = open_store(settings)
    put(store, [("somebody", START)])
    seen = []

    @dg.op
    def asking(
        accountant: dg.ResourceParam[Any], erasure_ledger: dg.ResourceParam[Any], state: dg.ResourceParam[Any]
    ) -> None:
        seen.extend([accountant, erasure_ledger, state])

    @dg.job(resource_defs=resources_under(settings))
    def run() -> None:
        asking()

    with dg.DagsterInstance.ephemeral() as instance:
        assert run.execute_in_process(instance=instance, run_config=QUIET).success
    assert [id(one) for one in seen] == [id(one) for one in (store.accountant, store.erasures, store.state)]
    assert build_a_day(build_definitions(settings)).success
    assert store.accountant.processed() == {START}


def test_a_landing_folder_that_is_named_at_launch_is_looked_into_and_one_in_the_store_is_refused(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "landing" / f"day={START}"
    folder.mkdir(parents=True)
    (folder / "_SUCCESS").touch()
    seen = []

    @dg.op
    def looking(events: dg.ResourceParam[Any]) -> None:
        seen.extend(events.landing.days())

    @dg.job(resource_defs=resources_under(read_settings()))
    def run() -> None:
        looking()

    def look_into(landing_dir: Path) -> None:
        config = {"events": {"config": {"landing_dir": str(landing_dir)}}}
        with dg.DagsterInstance.ephemeral() as instance:
            run.execute_in_process(instance=instance, run_config={**QUIET, "resources": config})

    look_into(tmp_path / "landing")
    assert seen == [START]
    with pytest.raises(Exception) as refused:
        look_into(tmp_path / "data" / "landing")
    assert isinstance(refused.value.__cause__, BadSetting) and "no raw id may lie" in str(refused.value.__cause__)


def test_a_ledger_that_was_handed_in_alone_has_no_other_parts(environment: pytest.MonkeyPatch) -> None:
    store = resources_under(read_settings())["state"]
    with pytest.raises(LookupError, match="hand in the other parts"):
        store.__class__(accountant=object()).create_resource(dg.build_init_resource_context())


# --- Who asks for what -------------------------------------------------------------------------------------------


class Watched:
    """A resource that notes under its name that something was asked of it."""

    def __init__(self, name: str, found: object, used: set[str]) -> None:
        self.__dict__.update(_name=name, _found=found, _used=used)

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._found, attribute)
        if not hasattr(dg.ConfigurableResource, attribute):  # which Dagster itself asks for, of any resource
            self._used.add(self._name)
        return value


def watched(store: Store, used: set[str]) -> dict[str, Any]:
    """The store's resources, each watched; of `state` its parts are, since core takes it apart."""
    found = resources_of(store)
    parts = {field.name: Watched("state", getattr(store.state, field.name), used) for field in fields(store.state)}
    others = {name: Watched(name, one, used) for name, one in found.items() if name != "state"}
    return {**found, **others, "state": replace(store.state, **parts)}


SHORT: dict[str, object] = {"mau_window_days": 3, "mau_mechanism": "gaussian", "epsilon_mau": Fraction(1, 4)}
DAYS = days_between(START, date(2025, 2, 5))
TODAY = date(2025, 2, 8)


def a_month_and_news(store: Store) -> None:
    """January is published and waits to be restated; the last day and MAU are not; events and a removal wait."""
    put(store, [(f"user {n}", day) for day in DAYS for n in range(4)])
    complete_all(DAYS, store)
    prepare(store, DAYS)
    for day in DAYS[:-1]:
        publish("dau", day, store)
    for day in DAYS[2:10]:
        publish("mau", day, store)
    put(store, [("a newcomer", DAYS[-1])])
    erase(store, "user 1", through=DAYS[-1])


@pytest.fixture
def store(make_store: Callable[..., Store], tmp_path: Path) -> Store:
    folder = tmp_path / "landing" / "day=2025-02-06"
    folder.mkdir(parents=True)
    (folder / "part.csv").write_text("user_id,op,day\nsomebody,+,2025-02-06\nuser 2,-,2025-02-06\n")
    (folder / "_SUCCESS").touch()
    store = make_store(today=TODAY, recipe=a_month_and_news, **SHORT)
    return make_store(today=TODAY, landing_dir=tmp_path / "landing", retention_days=36, **SHORT) if store else store


PARTITIONS = {
    "dau_release": DAYS[-1],
    "mau_release": DAYS[10],
    "dau_restatement": START,
    **dict.fromkeys(("erasures", "activity", "day_sketch"), DAYS[-1]),
}


@pytest.mark.parametrize("asset", ASSETS)
def test_an_asset_asks_for_the_resources_that_it_uses_and_no_more(
    asset: str, store: Store, instance: dg.DagsterInstance
) -> None:
    if asset == "day_sketch":
        put(store, [("another", DAYS[-1])])
        prepare(store, [])
    definitions, used = definitions_under(store.settings), set()
    definition = definitions.get_assets_def(asset)
    result = dg.materialize(
        [definition, *specs_beside(definitions, asset)],
        selection=[asset],
        partition_key=str(PARTITIONS[asset]) if asset in PARTITIONS else None,
        resources=watched(store, used),
        instance=instance,
        run_config=QUIET,
    )
    assert result.success
    assert used == set(definition.required_resource_keys) - {"io_manager"}


def specs_beside(definitions: dg.Definitions, asset: str) -> list[dg.AssetSpec]:
    others = (spec for spec in definitions.resolve_all_asset_specs() if spec.key != dg.AssetKey(asset))
    return [dg.AssetSpec(spec.key, partitions_def=spec.partitions_def) for spec in others]


@pytest.mark.parametrize("check", [check.name for check in CHECKS])
def test_a_check_asks_for_the_resources_that_it_uses_and_no_more(
    check: str, store: Store, instance: dg.DagsterInstance
) -> None:
    used: set[str] = set()
    world = Asked(store, instance, used=used)
    asset = "activity" if check == "no_pending_erasures" else "report"
    assert world.ask(asset, check).get_asset_check_evaluations()
    said = world.last_check(asset, check)
    assert said and "could not be asked" not in str(said.description)
    assert used == set(ASKED_OF[check])


class Asked(World):
    """A World that notes which of its resources are used."""

    def __init__(self, store: Store, instance: dg.DagsterInstance, sensor: str = "", *, used: set[str]) -> None:
        self.used = used
        super().__init__(store, instance, sensor=sensor)

    @property
    def resources(self) -> dict[str, Any]:
        return watched(self.store, self.used)


@pytest.mark.parametrize(
    "job",
    [
        "rebuild_days",
        "take_landed",
        "verify_erasures",
        *(
            pytest.param(job, marks=pytest.mark.slow) for job in ("publish_due", "purge_expired")
        ),  # a month is published
    ],
)
def test_an_op_asks_for_the_resources_that_it_uses_and_no_more(
    job: str, store: Store, instance: dg.DagsterInstance
) -> None:
    """Op by op: what one has done, the next one finds done."""
    definitions = definitions_under(store.settings)
    config = {"take_landed": {"ops": {"take_landed_days": {"config": {"days": ["2025-02-06"]}}}}}
    if job == "purge_expired":  # of what is published by then the first day is past retention
        for before in ("take_landed", "publish_due"):
            assert World(store, instance).execute(before, config=config.get(before)).success
    for node in definitions.resolve_job_def(job).nodes_in_topological_order:
        used: set[str] = set()
        done = Asked(store, instance, used=used).execute(job, config=config.get(job), ops=[node.name])
        assert done.success
        required = definitions.resolve_job_def(job).get_node_named(node.name).definition
        assert used == set(required.required_resource_keys), node.name  # type: ignore[union-attr]


@pytest.mark.parametrize("sensor", ["erasure_sensor", "inbox_sensor", "alert_sensor"])
def test_a_sensor_asks_for_the_resources_that_it_uses_and_no_more(
    sensor: str, store: Store, instance: dg.DagsterInstance
) -> None:
    used: set[str] = set()
    world = Asked(store, instance, sensor, used=used)
    world.tick()
    if sensor == "inbox_sensor":  # while something has landed it looks no further
        world.store = replace(store, events=replace(store.events, landing=LandingFiles(None)))
        world.tick()
    (definition,) = (one for one in world.definitions.sensors or () if one.name == sensor)
    assert used == set(definition.required_resource_keys)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["publish_due_hourly", "restate_monthly"])
def test_a_schedule_asks_for_the_resources_that_it_uses_and_no_more(name: str, store: Store, tmp_path: Path) -> None:
    used: set[str] = set()
    schedule = definitions_under(store.settings).get_schedule_def(name)
    found = watched(store, used)
    asked = {key: found[key] for key in schedule.required_resource_keys}
    noon = datetime.combine(TODAY, time(12), UTC)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as kept, dg.build_schedule_context(kept, noon, asked) as context:
        assert isinstance(schedule(context), dg.RunRequest)
    assert used == set(asked)


def test_using_a_resource_that_was_not_asked_for_fails_and_names_it(store: Store) -> None:
    project = Project(store.settings, lambda instance, schedule: False)
    handed = project.store(accountant=store.accountant, state=store.state)
    assert handed.accountant is store.accountant and not isinstance(handed.state.activity, NotAsked)
    with pytest.raises(AttributeError, match="resource `noise`, which this step did not ask for"):
        _ = handed.noise.private
    with pytest.raises(AttributeError, match="resource `sketches`"):
        handed.state.sketches.stored()


def test_a_release_that_lacks_its_noise_publishes_nothing(store: Store) -> None:
    """Where the step forgot to ask: nothing is sealed, charged or drawn."""
    project = Project(store.settings, lambda instance, schedule: False)
    parts = {name: one for name, one in resources_of(store).items() if name in ASKED_OF_A_RELEASE - {"noise"}}
    before = store.accountant.releases()
    with pytest.raises(AttributeError, match="resource `noise`"):
        publish("dau", DAYS[-1], project.store(**parts))
    assert store.accountant.releases() == before


ASKED_OF_A_RELEASE = {"clock", "accountant", "erasure_ledger", "events", "state", "sketches", "noise"}


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    yield
    open_store.cache_clear()
