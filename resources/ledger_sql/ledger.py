"""The ports Ledger and Books: what was charged, drawn and published."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection, Executable, Row, Table, delete, func, insert, select

from dpdau_assets.core.accounting import Charge
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.facts import Instance, Release, ReleaseKey
from dpdau_assets.core.mechanisms import mechanism_from_json
from dpdau_assets.core.settings import Metric
from dpdau_assets.core.windows import UNIX_EPOCH, day_number, month_of
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasures import recorded
from resources.ledger_sql.retention import fact, raise_fact


class SqlBooks:
    """The ledger inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.destroyed = False

    def release(self, key: ReleaseKey) -> Release | None:
        row = self._connection.execute(select(schema.releases).where(*_is(key))).one_or_none()
        return None if row is None else _release(row)

    def releases(self, metric: Metric | None = None) -> list[Release]:
        table = schema.releases
        query = select(table).order_by(table.c.id)
        return [_release(row) for row in self._all(query if metric is None else query.where(table.c.metric == metric))]

    def last_day(self, metric: Metric, window_days: int) -> date | None:
        table = schema.releases
        query = select(func.max(table.c.day)).where(table.c.metric == metric, table.c.window_days == window_days)
        found = self._connection.scalar(query)
        return None if found is None else date.fromisoformat(found)

    def restated(self) -> frozenset[date]:
        c = schema.releases.c
        query = select(c.day).where(c.metric == "dau", c.revision > 0).distinct()
        return frozenset(month_of(date.fromisoformat(row.day)) for row in self._all(query))

    def removals_recorded(self) -> int:
        return recorded(self._connection)

    def instance(self, name: str) -> Instance | None:
        row = self._connection.execute(select(schema.instances).where(schema.instances.c.name == name)).one_or_none()
        return None if row is None else _instance(row)

    def last_instance(self, metric: Metric, window_days: int) -> Instance | None:
        table = schema.instances
        query = select(table).where(table.c.metric == metric, table.c.window_days == window_days)
        row = self._connection.execute(query.order_by(table.c.id.desc()).limit(1)).one_or_none()
        return None if row is None else _instance(row)

    def instances(self) -> list[Instance]:
        return [_instance(row) for row in self._all(select(schema.instances).order_by(schema.instances.c.id))]

    def open_instance(self, instance: Instance) -> None:
        self._insert(
            schema.instances, name=instance.name, metric=instance.metric, window_days=instance.window_days,
            first_day=instance.first_day.isoformat(), mechanism=_json(instance.mechanism.to_json()),
            terms=_json(dict(instance.terms)),
        )  # fmt: skip

    def charges(self, metric: Metric, month: date) -> list[Charge]:
        c, i = schema.charges.c, schema.instances.c
        query = select(c.instance, i.mechanism).join(schema.instances, c.instance == i.name)
        rows = self._all(query.where(c.metric == metric, c.month == month.isoformat()).order_by(c.id))
        return [Charge(metric, month, row.instance, mechanism_from_json(json.loads(row.mechanism))) for row in rows]

    def charge(self, charge: Charge) -> None:
        self._insert(schema.charges, metric=charge.metric, month=charge.month.isoformat(), instance=charge.instance)

    def shared_noise(self, instance: str) -> int | None:
        table = schema.shared_noise
        return self._connection.scalar(select(table.c.value).where(table.c.instance == instance))

    def keep_shared_noise(self, instance: str, value: int) -> None:
        self._insert(schema.shared_noise, instance=instance, value=value)

    def destroy_shared_noise(self, instance: str) -> None:
        self._connection.execute(delete(schema.shared_noise).where(schema.shared_noise.c.instance == instance))
        self.destroyed = True

    def frozen(self, instance: str) -> list[int]:
        table = schema.stream_state
        rows = self._all(select(table.c.statistic).where(table.c.instance == instance).order_by(table.c.day))
        return [row.statistic for row in rows]

    def freeze(self, instance: str, day: date, statistic: int) -> None:
        self._insert(schema.stream_state, instance=instance, day=day.isoformat(), statistic=statistic)

    def numbers(self, instance: str) -> list[float]:
        table = schema.releases
        query = select(table.c.noisy_value).where(table.c.instance == instance).order_by(table.c.day, table.c.revision)
        return [row.noisy_value for row in self._all(query)]

    def store(self, release: Release) -> None:
        key = release.key
        self._insert(
            schema.releases, metric=key.metric, window_days=key.window_days, day=key.day.isoformat(),
            revision=key.revision, instance=release.instance, mechanism=release.mechanism,
            noisy_value=release.noisy_value, half_width=release.half_width, sketch_impl=release.sketch_impl,
            published_at=release.published_at, private=release.private, version=release.version,
        )  # fmt: skip

    def _insert(self, table: Any, **values: object) -> None:
        self._connection.execute(insert(table).values(**values))

    def _all(self, query: Executable) -> list[Row[Any]]:
        return list(self._connection.execute(query))


class SqlLedger:
    """The port Ledger on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def transaction(self) -> Iterator[SqlBooks]:
        with self._database.write() as connection:
            books = SqlBooks(connection)
            yield books
        if books.destroyed:
            self._database.empty_log()

    @contextmanager
    def _reading(self) -> Iterator[SqlBooks]:
        with self._database.read() as connection:
            yield SqlBooks(connection)

    def release(self, key: ReleaseKey) -> Release | None:
        with self._reading() as books:
            return books.release(key)

    def releases(self, metric: Metric | None = None) -> list[Release]:
        with self._reading() as books:
            return books.releases(metric)

    def instances(self) -> list[Instance]:
        with self._reading() as books:
            return books.instances()

    def restated(self) -> frozenset[date]:
        with self._reading() as books:
            return books.restated()

    def charges(self, metric: Metric, month: date) -> list[Charge]:
        with self._reading() as books:
            return books.charges(metric, month)

    def seal(self, days: Iterable[date]) -> None:
        self._add_days(schema.seals, set(days) - self.sealed())

    def sealed(self) -> frozenset[date]:
        return self._days(schema.seals)

    def mark_processed(self, days: Iterable[date]) -> None:
        self._add_days(schema.processed, set(days) - self.processed())

    def processed(self) -> frozenset[date]:
        return self._days(schema.processed)

    def purge_through(self, day: date) -> None:
        with self._database.write() as connection:
            raise_fact(connection, "purged_through", day_number(day))

    def purged_through(self) -> date | None:
        with self._database.read() as connection:
            number = fact(connection, "purged_through")
        return None if number is None else UNIX_EPOCH + timedelta(days=number)

    def _add_days(self, table: Table, days: set[date]) -> None:
        if days:
            with self._database.write() as connection:
                rows = [{"day": day.isoformat()} for day in sorted(days)]
                connection.execute(insert(table).prefix_with("OR IGNORE"), rows)

    def _days(self, table: Table) -> frozenset[date]:
        with self._database.read() as connection:
            return frozenset(date.fromisoformat(row.day) for row in connection.execute(select(table)))

    def fix_terms(self, terms: Mapping[str, str]) -> None:
        with self._database.write() as connection:
            rows = connection.execute(select(schema.terms))
            fixed = {row.name: row.value for row in rows}
            wrong = [f"{name}={value}: this store was begun with {fixed[name]}"
                     for name, value in terms.items() if fixed.get(name, value) != value]  # fmt: skip
            if wrong:
                raise BadSetting("; ".join(wrong) + ".", "Set them back, or begin a new DATA_DIR.")
            for name in terms.keys() - fixed.keys():
                connection.execute(insert(schema.terms).values(name=name, value=terms[name]))


def _is(key: ReleaseKey) -> list[Any]:
    c = schema.releases.c
    same_series = [c.metric == key.metric, c.window_days == key.window_days]
    return [*same_series, c.day == key.day.isoformat(), c.revision == key.revision]


def _release(row: Row[Any]) -> Release:
    return Release(
        key=ReleaseKey(row.metric, row.window_days, date.fromisoformat(row.day), row.revision),
        instance=row.instance, mechanism=row.mechanism, noisy_value=row.noisy_value, half_width=row.half_width,
        sketch_impl=row.sketch_impl, published_at=row.published_at, private=row.private, version=row.version,
    )  # fmt: skip


def _instance(row: Row[Any]) -> Instance:
    return Instance(
        name=row.name, metric=row.metric, window_days=row.window_days, first_day=date.fromisoformat(row.first_day),
        mechanism=mechanism_from_json(json.loads(row.mechanism)), terms=json.loads(row.terms),
    )  # fmt: skip


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)
