"""The ports Ledger and LedgerTransaction: what was charged, drawn and published.

Owns the rule: A number is drawn once and kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from fractions import Fraction
from secrets import token_hex
from typing import Any

from sqlalchemy import ColumnElement, Connection, Executable, Row, Select, Table, func, select, true

from dpdau_assets.core.dates import UNIX_EPOCH, day_number, month_of
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.facts import Override, Release, ReleaseKey
from dpdau_assets.core.privacy.accounting import Budget, Charge
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.privacy.mechanisms import Mechanism, mechanism_from_json
from dpdau_assets.core.settings import Metric
from resources.ledger_sql import chain, schema
from resources.ledger_sql.chain import append
from resources.ledger_sql.database import Database
from resources.ledger_sql.erasures import recorded
from resources.ledger_sql.keyring import Keyring
from resources.ledger_sql.retention import fact, raise_fact
from resources.ledger_sql.secret_values import NOISE, STATISTIC, destroy, keep, reveal
from resources.ledger_sql.verification import verify

_STORE, _STORE_ID_BYTES = "STORE", 16  # the random name of the store, among its fixed settings
_FOLDER = "FOLDER"  # there, once a data directory knows that name
_LAST_ROWS = select(  # of the appended tables that published numbers and budgets follow from; not of those of requests
    *(
        select(func.max(table.c.id)).scalar_subquery()
        for table in (
            schema.releases,
            schema.charges,
            schema.instances,
            schema.overrides,
            schema.closures,
            schema.restores,
            schema.retention,
            schema.lost_epochs,
        )
    )
)


class SqlLedgerReader:
    """What the ledger says, inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

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
        day = self._connection.scalar(query)
        return None if day is None else date.fromisoformat(day)

    def last_release(self, metric: Metric) -> Release | None:
        table = schema.releases
        query = select(table).where(table.c.metric == metric).order_by(table.c.day.desc(), table.c.revision.desc())
        row = self._connection.execute(query.limit(1)).one_or_none()
        return None if row is None else _release(row)

    def restated(self) -> frozenset[date]:
        c = schema.releases.c
        query = select(c.day).where(c.metric == "dau", c.revision > 0).distinct()
        return frozenset(month_of(date.fromisoformat(row.day)) for row in self._all(query))

    def removals_recorded(self) -> int:
        return recorded(self._connection)

    def mechanism_run(self, name: str) -> MechanismRun | None:
        row = self._connection.execute(select(schema.instances).where(schema.instances.c.name == name)).one_or_none()
        return None if row is None else _mechanism_run(row)

    def last_run(self, metric: Metric, window_days: int) -> MechanismRun | None:
        table = schema.instances
        query = select(table).where(table.c.metric == metric, table.c.window_days == window_days)
        row = self._connection.execute(query.order_by(table.c.id.desc()).limit(1)).one_or_none()
        return None if row is None else _mechanism_run(row)

    def mechanism_runs(self) -> list[MechanismRun]:
        return [_mechanism_run(row) for row in self._all(select(schema.instances).order_by(schema.instances.c.id))]

    def charges(self, metric: Metric, month: date) -> list[Charge]:
        c, i = schema.charges.c, schema.instances.c
        query = select(c.instance, c.epsilon_cap, c.delta, i.mechanism).join(schema.instances, c.instance == i.name)
        rows = self._all(query.where(c.metric == metric, c.month == month.isoformat()).order_by(c.id))
        return [Charge(metric, month, row.instance, _mechanism(row), _budget(row)) for row in rows]

    def cap(self, metric: Metric, month: date) -> Fraction | None:
        for table, order in ((schema.overrides, schema.overrides.c.id.desc()), (schema.charges, schema.charges.c.id)):
            here = (table.c.metric == metric, table.c.month == month.isoformat(), table.c.epsilon_cap.is_not(None))
            cap = self._connection.scalar(select(table.c.epsilon_cap).where(*here).order_by(order).limit(1))
            if cap is not None:
                return Fraction(cap)
        return None

    def delta(self, metric: Metric, month: date) -> float | None:
        c = schema.charges.c
        here = (c.metric == metric, c.month == month.isoformat(), c.delta.is_not(None))
        return self._connection.scalar(select(c.delta).where(*here).order_by(c.id).limit(1))

    def closures(self, metric: Metric, month: date | None = None) -> int:
        c = schema.closures.c
        here = () if month is None else (c.month == month.isoformat(),)
        return self._connection.scalar(select(func.count(c.id)).where(c.metric == metric, *here)) or 0

    def is_closed(self, metric: Metric, month: date) -> bool:
        if not self.closures(metric, month):
            return False
        closed, opened = (
            self._last_entry(table, (table.c.metric == metric) & (table.c.month == month.isoformat()) & these)
            for table, these in ((schema.closures, true()), (schema.overrides, schema.overrides.c.opens))
        )
        return closed > opened

    def awaits_erasures(self) -> bool:
        restored = self._last_entry(schema.restores)
        return restored > 0 and restored > self._last_entry(
            schema.overrides, schema.overrides.c.kind == "erasures_submitted"
        )

    def _last_entry(self, table: Table, *where: ColumnElement[bool]) -> int:
        """The place in the chain of the last such row, 0 for none."""
        e = schema.entries.c
        within = (e.kind == table.name) & table.c.id.between(e.first_row, e.last_row)
        return self._connection.scalar(select(func.max(e.id)).join(table, within).where(*where)) or 0

    def _all(self, query: Executable) -> list[Row[Any]]:
        return list(self._connection.execute(query))


class SqlLedgerTransaction(SqlLedgerReader):
    """The ledger inside one transaction that writes."""

    def __init__(self, connection: Connection, keyring: Keyring) -> None:
        super().__init__(connection)
        self._keyring = keyring
        self.destroyed = False

    def open_run(self, run: MechanismRun) -> None:
        self._append(
            schema.instances,
            name=run.name,
            metric=run.metric,
            window_days=run.window_days,
            first_day=run.first_day.isoformat(),
            mechanism=_json(run.mechanism.to_json()),
            terms=_json(dict(run.parameters)),
        )

    def charge(self, charge: Charge) -> None:
        cap, delta = (None, None) if charge.budget is None else (str(charge.budget.epsilon), charge.budget.delta)
        month = charge.month.isoformat()
        row = {"metric": charge.metric, "month": month, "instance": charge.run}
        self._append(schema.charges, **row, epsilon_cap=cap, delta=delta)

    def shared_noise(self, run: str) -> int | None:
        table = schema.shared_noise
        encrypted = self._connection.scalar(select(table.c.encrypted).where(table.c.subject == run))
        return None if encrypted is None else reveal(self._connection, self._keyring, NOISE, run, encrypted)

    def keep_shared_noise(self, run: str, value: int) -> None:
        keep(self._connection, self._keyring, NOISE, run, value)

    def destroy_shared_noise(self, run: str) -> None:
        destroy(self._connection, self._keyring, NOISE, run)
        self.destroyed = True

    def frozen(self, run: str, days: int) -> list[int]:
        table = schema.stream_state
        rows = self._all(select(table).where(table.c.instance == run).order_by(table.c.day.desc()).limit(days))
        opened = [reveal(self._connection, self._keyring, STATISTIC, row.subject, row.encrypted) for row in rows]
        return opened[::-1]

    def freeze(self, run: str, day: date, statistic: int) -> None:
        columns = {"instance": run, "day": day.isoformat()}
        keep(self._connection, self._keyring, STATISTIC, f"{run} {day}", statistic, **columns)

    def destroy_frozen(self, run: str, keep_last: int) -> None:
        table = schema.stream_state
        here = select(table.c.subject).where(table.c.instance == run).order_by(table.c.day.desc())
        for subject in self._connection.scalars(here.offset(keep_last)).all():
            destroy(self._connection, self._keyring, STATISTIC, subject)
            self.destroyed = True

    def numbers(self, run: str, last: int | None = None) -> list[float]:
        table = schema.releases
        query = select(table.c.noisy_value).where(table.c.instance == run)
        rows = self._all(query.order_by(table.c.day.desc(), table.c.revision.desc()).limit(last))
        return [row.noisy_value for row in rows][::-1]

    def store(self, release: Release) -> None:
        key = release.key
        self._append(
            schema.releases,
            metric=key.metric,
            window_days=key.window_days,
            day=key.day.isoformat(),
            revision=key.revision,
            instance=release.run,
            mechanism=release.mechanism,
            noisy_value=release.noisy_value,
            half_width=release.half_width,
            sketch_impl=release.sketch_impl,
            published_at=release.published_at,
            private=release.private,
            version=release.version,
        )

    def _append(self, table: Table, **values: object) -> None:
        self._append_all(table, [values])

    def _append_all(self, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
        append(self._connection, self._keyring, table, rows)


class SqlLedgerSnapshot(SqlLedgerReader):
    """The port LedgerSnapshot inside one transaction that reads: what was asked once is not read again."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._releases: list[Release] | None = None
        self._by_key: dict[ReleaseKey, Release] = {}
        self._runs: list[MechanismRun] | None = None
        self._processed: frozenset[date] | None = None

    @contextmanager
    def snapshot(self) -> Iterator[SqlLedgerSnapshot]:
        yield self

    def release(self, key: ReleaseKey) -> Release | None:
        if self._releases is None:
            return super().release(key)
        return self._by_key.get(key)

    def releases(self, metric: Metric | None = None) -> list[Release]:
        if self._releases is None:
            self._releases = super().releases()
            self._by_key = {release.key: release for release in self._releases}
        return [release for release in self._releases if metric in (None, release.key.metric)]

    def mechanism_runs(self) -> list[MechanismRun]:
        if self._runs is None:
            self._runs = super().mechanism_runs()
        return list(self._runs)

    def overrides(self) -> list[Override]:
        return [_override(row) for row in self._all(select(schema.overrides).order_by(schema.overrides.c.id))]

    def sealed(self) -> frozenset[date]:
        return days_in(self._connection, schema.seals)

    def processed(self) -> frozenset[date]:
        if self._processed is None:
            self._processed = days_in(self._connection, schema.processed)
        return self._processed

    def purged_through(self) -> date | None:
        number = fact(self._connection, "purged_through")
        return None if number is None else UNIX_EPOCH + timedelta(days=number)

    def edition(self) -> str:
        return ".".join(str(last or 0) for last in self._connection.execute(_LAST_ROWS).one())


class SqlLedger:
    """The port Ledger on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def transaction(self) -> Iterator[SqlLedgerTransaction]:
        with self._database.write() as connection:
            opened = SqlLedgerTransaction(connection, self._database.keyring)
            yield opened
        if opened.destroyed:
            self._database.overwrite_deleted(schema.shared_noise, schema.stream_state)

    @contextmanager
    def snapshot(self) -> Iterator[SqlLedgerSnapshot]:
        with self._database.read() as connection:
            yield SqlLedgerSnapshot(connection)

    def release(self, key: ReleaseKey) -> Release | None:
        with self._database.read() as connection:
            return SqlLedgerReader(connection).release(key)

    def releases(self, metric: Metric | None = None) -> list[Release]:
        with self._database.read() as connection:
            return SqlLedgerReader(connection).releases(metric)

    def mechanism_runs(self) -> list[MechanismRun]:
        with self.snapshot() as ledger:
            return ledger.mechanism_runs()

    def restated(self) -> frozenset[date]:
        with self.snapshot() as ledger:
            return ledger.restated()

    def charges(self, metric: Metric, month: date) -> list[Charge]:
        with self.snapshot() as ledger:
            return ledger.charges(metric, month)

    def cap(self, metric: Metric, month: date) -> Fraction | None:
        with self.snapshot() as ledger:
            return ledger.cap(metric, month)

    def delta(self, metric: Metric, month: date) -> float | None:
        with self.snapshot() as ledger:
            return ledger.delta(metric, month)

    def closures(self, metric: Metric, month: date | None = None) -> int:
        with self.snapshot() as ledger:
            return ledger.closures(metric, month)

    def is_closed(self, metric: Metric, month: date) -> bool:
        with self.snapshot() as ledger:
            return ledger.is_closed(metric, month)

    def awaits_erasures(self) -> bool:
        with self.snapshot() as ledger:
            return ledger.awaits_erasures()

    def override(self, override: Override) -> None:
        with self._database.write() as connection:
            ledger = SqlLedgerTransaction(connection, self._database.keyring)
            metric, month = override.metric, override.month
            opens = metric is not None and month is not None and ledger.is_closed(metric, month)
            append(connection, self._database.keyring, schema.overrides, [{**_override_row(override), "opens": opens}])

    def overrides(self) -> list[Override]:
        with self.snapshot() as ledger:
            return ledger.overrides()

    def seal(self, days: Iterable[date]) -> None:
        self._add_days(schema.seals, days)

    def sealed(self) -> frozenset[date]:
        with self.snapshot() as ledger:
            return ledger.sealed()

    def mark_processed(self, days: Iterable[date]) -> None:
        self._add_days(schema.processed, days)

    def processed(self) -> frozenset[date]:
        with self.snapshot() as ledger:
            return ledger.processed()

    def purge_through(self, day: date) -> None:
        with self._database.write() as connection:
            raise_fact(connection, self._database.keyring, "purged_through", day_number(day))

    def purged_through(self) -> date | None:
        with self.snapshot() as ledger:
            return ledger.purged_through()

    def edition(self) -> str:
        with self.snapshot() as ledger:
            return ledger.edition()

    def restores(self) -> int:
        with self._database.read() as connection:
            return connection.scalar(select(func.count()).select_from(schema.restores)) or 0

    def problems(self) -> list[str]:
        return verify(self._database)

    def head(self) -> str:
        with self._database.read() as connection:
            return chain.head(connection)

    def holds(self, head: str) -> bool:
        with self._database.read() as connection:
            return chain.holds(connection, head)

    def _add_days(self, table: Table, days: Iterable[date]) -> None:
        wanted = set(days)
        if wanted - self._days(table):
            with self._database.write() as connection:
                add_days(connection, self._database.keyring, table, wanted)

    def _days(self, table: Table) -> frozenset[date]:
        with self._database.read() as connection:
            return days_in(connection, table)

    def store_id(self) -> str | None:
        return self._fixed_setting(_STORE)

    def has_folder(self) -> bool:
        return self._fixed_setting(_FOLDER) is not None

    @contextmanager
    def naming_folder(self) -> Iterator[bool]:
        with self._database.write() as connection:
            has_one = connection.scalar(_value_of(_FOLDER)) is not None
            yield has_one
            if not has_one and self._database.keyring.has_secret:
                append(connection, self._database.keyring, schema.terms, [{"name": _FOLDER, "value": "claimed"}])

    def _fixed_setting(self, name: str) -> str | None:
        with self._database.read() as connection:
            return connection.scalar(_value_of(name))

    def fix_settings(self, fixed_settings: Mapping[str, str]) -> None:
        with self._database.write() as connection:
            fixed = {row.name: row.value for row in connection.execute(select(schema.terms))}
            wrong = list(_differing(fixed_settings, fixed))
            if wrong:
                raise BadSetting("; ".join(wrong) + ".", "Set them back, or begin a new DATA_DIR.")
            if not fixed:
                self._database.keyring.require_strong_secret()
            wanted = {_STORE: token_hex(_STORE_ID_BYTES), **fixed_settings}
            new = [{"name": name, "value": wanted[name]} for name in sorted(wanted.keys() - fixed.keys())]
            if self._database.keyring.has_secret:  # without it nothing can be kept that they would bind
                append(connection, self._database.keyring, schema.terms, new)


def _differing(fixed_settings: Mapping[str, str], fixed: Mapping[str, str]) -> Iterator[str]:
    """Each setting that is another one than the store's.

    A store that was begun before these two settings existed read times without a zone as times of its TIMEZONE, and
    took each id as it came: that is what it has fixed.
    """
    unsaid = {"NAIVE_ZONE": fixed["TIMEZONE"], "USER_ID_NORMALIZE": "none"} if "TIMEZONE" in fixed else {}
    for name, value in fixed_settings.items():
        begun = fixed.get(name, unsaid.get(name, value))
        if begun == value:
            continue
        if name in fixed:
            yield f"{name}={value}: this store was begun with {begun}"
        else:
            yield f"{name}={value}: this store was begun before {name} was a setting, and has to keep to {name}={begun}"


def _value_of(name: str) -> Select[Any]:
    return select(schema.terms.c.value).where(schema.terms.c.name == name)


def add_days(connection: Connection, keyring: Keyring, table: Table, days: Iterable[date]) -> None:
    """Append those of these days that the table does not have."""
    new = set(days) - days_in(connection, table)
    append(connection, keyring, table, [{"day": day.isoformat()} for day in sorted(new)])


def days_in(connection: Connection, table: Table) -> frozenset[date]:
    return frozenset(date.fromisoformat(day) for day in connection.scalars(select(table.c.day)))


def _is(key: ReleaseKey) -> list[Any]:
    c = schema.releases.c
    same_series = [c.metric == key.metric, c.window_days == key.window_days]
    return [*same_series, c.day == key.day.isoformat(), c.revision == key.revision]


def _release(row: Row[Any]) -> Release:
    return Release(
        key=ReleaseKey(row.metric, row.window_days, date.fromisoformat(row.day), row.revision),
        run=row.instance,
        mechanism=row.mechanism,
        noisy_value=row.noisy_value,
        half_width=row.half_width,
        sketch_impl=row.sketch_impl,
        published_at=row.published_at,
        private=row.private,
        version=row.version,
    )


def _mechanism_run(row: Row[Any]) -> MechanismRun:
    return MechanismRun(
        name=row.name,
        metric=row.metric,
        window_days=row.window_days,
        first_day=date.fromisoformat(row.first_day),
        mechanism=_mechanism(row),
        parameters=json.loads(row.terms),
    )


def _mechanism(row: Row[Any]) -> Mechanism:
    return mechanism_from_json(json.loads(row.mechanism))


def _budget(row: Row[Any]) -> Budget | None:
    return None if row.epsilon_cap is None else Budget(Fraction(row.epsilon_cap), row.delta)


def _override_row(override: Override) -> dict[str, object]:
    month, epsilon = override.month, override.epsilon
    return {
        "kind": override.kind,
        "metric": override.metric,
        "month": None if month is None else month.isoformat(),
        "epsilon_cap": None if epsilon is None else str(epsilon),
        "who": override.who,
        "why": override.why,
        "made_on": override.made_on.isoformat(),
    }


def _override(row: Row[Any]) -> Override:
    return Override(
        kind=row.kind,
        who=row.who,
        why=row.why,
        made_on=date.fromisoformat(row.made_on),
        metric=row.metric,
        month=None if row.month is None else date.fromisoformat(row.month),
        epsilon=None if row.epsilon_cap is None else Fraction(row.epsilon_cap),
    )


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)
