"""`dpdau serve` beside a real Dagster instance, on one store: a person from the first event to the MAU without her."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dpdau_assets.core.dates import days_between, epochs_of_day
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.settings import Settings
from dpdau_tests.api.serving import Answer, Served, serve
from dpdau_tests.cli.conftest import Dpdau
from dpdau_tests.support.master_secret import SECRET
from resources.dagster_instance import open_run
from resources.store import open_store

pytestmark = pytest.mark.slow

SHE, ANOTHER, LATECOMER = "she@planted.example", "another@planted.example", "latecomer@planted.example"
PEOPLE = [f"person-{n}@planted.example" for n in range(30)]
ACTIVE = 31  # on each day, with ANOTHER; and she


@dataclass
class Product:
    """A product's days up to now, and dpdau beside it: its server, and its commands, which use Dagster."""

    folder: Path
    today: date = field(default_factory=lambda: datetime.now(UTC).date())

    @property
    def start(self) -> date:
        """So that there are 40 days of events before the last of them is published."""
        return self.today - timedelta(days=42)

    @property
    def days(self) -> list[date]:
        """The days of the beginning; the next one is yesterday's eve."""
        return days_between(self.start, self.today - timedelta(days=3))

    @property
    def next_day(self) -> date:
        return self.today - timedelta(days=2)

    @property
    def settings(self) -> Settings:
        return Settings(data_dir=self.folder / "store", hash_salt_secret=SECRET, start_date=self.start)

    @property
    def environment(self) -> dict[str, str]:
        return {"DATA_DIR": str(self.folder / "store"), "START_DATE": str(self.start)}

    def publish(self, first: date, last: date) -> None:
        """By Dagster's jobs, on an instance on disk."""
        self._dpdau("run", "--from", str(first), "--to", str(last))

    def flush(self) -> Any:
        return self._dpdau("flush-deletes")

    def _dpdau(self, *arguments: str) -> Any:
        dpdau = Dpdau(self.folder)
        dpdau.environment |= self.environment
        done = dpdau(*arguments)
        assert done.code == 0, done.said
        return done.json

    def store(self) -> Store:
        open_store.cache_clear()
        return open_store(self.settings)


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return Product(tmp_path)


@pytest.fixture
def served(product: Product) -> Iterator[Served]:
    with serve(product.folder, workers=2, START_DATE=str(product.start)) as served:
        yield served


def post(served: Served, users: Iterable[str], days: Iterable[date]) -> None:
    """A request a day."""
    for day in days:
        rows = [{"user_id": user, "op": "+", "day": str(day)} for user in users]
        taken = served.ask("POST", "/event", {"events": rows})
        assert (taken.status, taken.said) == (202, {"ingested": len(rows), "rejected": 0, "rejected_by_reason": {}})


def declare(served: Served, days: Iterable[date]) -> None:
    assert {served.ask("POST", f"/complete/{day}").status for day in days} == {200}


def read(served: Served, path: str, known: Answer | None = None) -> Answer:
    """What is answered to somebody who has this answer already."""
    if known is None:
        return served.ask("GET", path)
    return served.ask("GET", path, If_None_Match=known.headers["etag"])


def window_of(user: str, end: date, store: Store) -> list[date]:
    """The days of the window of this end on which the state has the user, in whatever file and under whatever key."""
    return [day for day in days_between(end - timedelta(days=29), end) if _has(user, day, store)]


def _has(user: str, day: date, store: Store) -> bool:
    epochs = epochs_of_day(day, store.settings.hash_salt_rotation_days, store.settings.mau_window_days)
    keys = store.state.salts.epoch_keys(epochs)
    kept = [(epoch, files.read(day, epoch)) for epoch in epochs for files in (store.state.activity, store.state.late)]
    return any(found is not None and user_key(keys[epoch].secret, user) in found.tolist() for epoch, found in kept)


def counted(store: Store, last: int) -> list[int]:
    """The exact counts that the noise of the last numbers of MAU went on, oldest first, as the ledger keeps them."""
    with store.accountant.transaction() as ledger:
        run = ledger.last_run("mau", store.settings.mau_window_days)
        assert run is not None
        return ledger.frozen(run.name, last)


def test_a_person_erased_over_http_is_verified_and_out_of_the_next_mau(
    product: Product, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last, after = product.days[-2], product.days[-1], product.next_day
    series = f"/series/mau?from={product.start}&to={product.today}"
    nothing_yet = read(served, f"/dau/{last}")
    assert (nothing_yet.status, nothing_yet.said["code"]) == (404, "NotPublished")

    # Events of 40 days, and the first numbers.
    post(served, [*PEOPLE, ANOTHER, SHE], product.days)
    declare(served, product.days)
    product.publish(first, last)
    number = read(served, f"/mau?end={last}&window=30")
    assert (number.status, number.said["window_days"], number.said["private"]) == (200, 30, True)
    assert abs(number.said["noisy_value"] - (ACTIVE + 1)) < 60, "15 standard deviations"
    assert read(served, f"/dau/{last}").status == 200
    two = read(served, series)
    assert [row["day"] for row in two.said] == [str(first), str(last)]
    assert read(served, series, known=two).status == 304
    assert counted(product.store(), 2) == [ACTIVE + 1, ACTIVE + 1]

    # What comes for a day that was published is late; and she asks to be erased.
    post(served, [LATECOMER, SHE], [last])
    asked = served.ask("POST", "/erasure", {"user_id": SHE, "through": str(last), "reference": "ticket-1"})
    assert asked.status == 202
    (receipt,) = asked.said["receipts"]
    waiting = served.ask("GET", f"/erasure/{receipt}").said
    assert (waiting["state"], waiting["verified"]) == ("received", False)
    assert product.flush()["verified"] == 1
    shown = served.ask("GET", f"/erasure/{receipt}?verify=1").said
    assert (shown["state"], shown["verified"], shown["survivors"]) == ("verified", True, [])
    assert shown["reference"] == "ticket-1" and shown["signature"]
    assert {row["membership"] for row in shown["partitions"]} <= {"absent", "not asked"}
    assert read(served, series, known=two).status == 304, "an erasure changes no number that is out"

    # What she did is handed in once more, with the next day, on which she is away.
    post(served, [SHE], product.days[-5:])
    post(served, [*PEOPLE, ANOTHER], [after])
    declare(served, [after])
    product.publish(after, after)
    store = product.store()
    assert window_of(SHE, after, store) == []
    assert window_of(ANOTHER, after, store) == days_between(after - timedelta(days=29), after)
    assert window_of(LATECOMER, after, store) == [last], "kept for its month's restatement"
    assert counted(store, 3) == [ACTIVE + 1, ACTIVE + 1, ACTIVE]
    three = read(served, series, known=two)
    assert three.status == 200 and three.headers["etag"] != two.headers["etag"]
    assert three.said[:2] == two.said and three.said[2]["day"] == str(after)
    again = served.ask("GET", f"/erasure/{receipt}?verify=1").said
    assert (again["verified"], again["survivors"]) == (True, [])

    # What Dagster was told of it, and what nobody was.
    home = product.settings.data_dir / "dagster_home"
    monkeypatch.setenv("DAGSTER_HOME", str(home))  # which dagster.yaml names
    with open_run(home) as instance:
        told = instance.fetch_materializations(dg.AssetKey("mau_release"), limit=10).records
        assert {record.partition_key for record in told} == {str(first), str(last), str(after)}
    kept = [path for path in product.folder.rglob("*") if path.is_file()]
    assert [path.name for path in kept if b"@planted.example" in path.read_bytes()] == []
    assert read(served, "/readyz").said["status"] == "ready"
