"""The daily digest as it leaves: after a publication by the schedule's job, once for each due day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import dagster as dg
import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete, complete_all
from dpdau_tests.conftest import FixedClock, put
from dpdau_tests.dagster.world import World
from dpdau_tests.support.receiving import webhook_receiver
from resources.messages.messages import Messages

DAYS = days_between(date(2025, 1, 1), date(2025, 1, 4))
MakeStore = Callable[..., Store]


def test_after_each_publication_one_message_tells_of_its_last_day_and_running_the_job_again_tells_nothing(
    make_store: MakeStore, instance: dg.DagsterInstance
) -> None:
    store = make_store(today=DAYS[2] + timedelta(days=2))
    put(store, [(f"user {n}", day) for day in DAYS for n in range(3)])
    complete_all(DAYS[:3], store)
    with webhook_receiver() as channel, webhook_receiver() as alerts:
        settings = replace(store.settings, digest_webhook=channel.address, alert_webhook=alerts.address)
        for today in (DAYS[2], DAYS[2], DAYS[3]):
            now = replace(store, clock=FixedClock(today + timedelta(days=2)))
            if today == DAYS[3]:
                complete(today, now)
            world = World(now, instance, alerts=Messages(settings))  # type: ignore[arg-type]
            assert world.execute("publish_due").success
        assert channel.bodies == [], "a publication waits for no receiver"
        Messages(settings).deliver()
    titles = [body["blocks"][0]["text"]["text"] for body in channel.bodies]
    assert titles == [f"Active users, published {day + timedelta(days=2)}" for day in DAYS[2:]]
    assert alerts.bodies == []
    first = channel.bodies[0]["blocks"][1]["text"]["text"]
    assert first.startswith(f"*DAU* of {DAYS[2]:%a} {DAYS[2]}: *")


def test_a_day_that_upstream_has_not_declared_is_in_the_digest_of_the_days_before_it(
    make_store: MakeStore, instance: dg.DagsterInstance
) -> None:
    store = make_store(today=DAYS[3] + timedelta(days=2))
    put(store, [(f"user {n}", day) for day in DAYS for n in range(3)])
    complete_all(DAYS[:2], store)
    world = World(store, instance)
    assert world.execute("publish_due").success
    (digest,) = world.alerts.digests
    (need,) = [need for need in digest.needs if need.startswith("published_on_time")]
    assert f"not declared complete: upstream, or `dpdau complete` ({DAYS[2]}, {DAYS[3]})" in need


def test_what_a_check_finds_that_somebody_may_have_done_is_noted_as_a_security_event(
    make_store: MakeStore, instance: dg.DagsterInstance
) -> None:
    store = make_store(today=DAYS[3] + timedelta(days=2))
    put(store, [("somebody", DAYS[0])])
    world = World(store, instance)
    world.build(DAYS[:1])
    for check in ("state_is_keyed", "ledger_holds", "no_older_files", "noise_is_private"):
        world.ask("report", check)
    assert not world.alerts.noted
    (file,) = (store.settings.data_dir / "activity" / f"day={DAYS[0]}").iterdir()
    file.write_bytes(b"not Parquet any more")
    world.ask("report", "state_is_keyed")
    (event,) = world.alerts.noted
    assert event.kind == "tampering_found" and event.about.startswith("state_is_keyed: 1 day(s) with state that is")
    assert "somebody" not in event.about


def test_a_publication_and_a_check_do_not_fail_where_nobody_can_be_told(
    make_store: MakeStore, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(today=DAYS[1] + timedelta(days=2))
    put(store, [("somebody", DAYS[0])])
    complete_all(DAYS[:1], store)
    (store.settings.data_dir / "messages").write_text("a file in the way")
    settings = replace(store.settings, digest_webhook="http://127.0.0.1:1/nobody")
    world = World(store, instance, alerts=Messages(settings))  # type: ignore[arg-type]
    assert world.execute("publish_due").success
    (file,) = (store.settings.data_dir / "activity" / f"day={DAYS[0]}").iterdir()
    file.write_bytes(b"not Parquet any more")
    world.ask("report", "state_is_keyed")
    assert (said := world.last_check("report", "state_is_keyed")) and not said.passed
    assert caplog.text.count("A message to operators cannot be kept") == 2
