"""What is changed behind the ledger's back is found: a byte, a row, an order, a secret, the end of the chain."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Table, UniqueConstraint, and_, delete, event, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.receipts import apply_and_verify
from dpdau_assets.core.erasure.requests import cancel, confirm, request
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import Override, ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.restored import Restore
from dpdau_assets.core.settings import Settings
from dpdau_tests.conftest import SECRET, FixedClock, prepare, put
from dpdau_tests.support.connections import closed_at_the_end
from dpdau_tests.support.fast_folder import fast_folder
from dpdau_tests.support.lengths import at_length, chance
from dpdau_tests.support.postgres import schema_url
from dpdau_tests.support.prepared import Prepared
from resources.ledger_sql import schema
from resources.ledger_sql.backup import restore_transaction
from resources.ledger_sql.database import Database, open_engine
from resources.ledger_sql.keyring import KEY_BYTES, LEDGER, RECEIPTS, Keyring
from resources.ledger_sql.ledger import SqlLedger
from resources.store import open_store

Row = Mapping[str, Any]
JANUARY = date(2025, 1, 1)
EVERY = schema.metadata.tables
TABLES = tuple(EVERY[name] for name in (*schema.APPENDED, *schema.VOUCHED_FOR))
ONLY_ORDER = (schema.entries.c.id, schema.tombstones.c.id)  # say nothing of their own
NO_ORDER = (schema.tombstones, schema.version)  # two of them in each other's place are the same
ROWS = at_length(test=8, ci=3, soak=1)  # one row in so many, and one at least of each table
BUILDS = at_length(test=40, ci=8, soak=1)  # there are many of them, all alike
BYTES = at_length(test=200, ci=24, soak=1)  # one byte in so many of what is changed, and one at least
"""Each run begins elsewhere; a soak changes each one."""
BEGIN, FIRST_BYTE = (chance(f"which {what}").randrange(10_000) for what in ("rows", "bytes"))


def write_a_ledger(store: Store, database: Database) -> None:
    """A small one, with rows of everything."""
    for day in (JANUARY, date(2025, 1, 2)):
        store.events.completions.complete(day, "what has landed")
    store.events.completions.withdraw(JANUARY)
    store.accountant.purge_through(date(2024, 12, 31))
    store.state.salts.shred_through(200)
    put(store, [("user 1", JANUARY)])
    prepare(store, days_between(JANUARY, date(2025, 3, 1)))
    publish("dau", date(2025, 1, 30), store)
    publish("mau", date(2025, 1, 30), store)
    request([Event("user 1", "-", date(2025, 1, 30), reference="T-1")], store)
    apply_and_verify(store)
    parked = request([Event(name, "-", date(2025, 2, 2)) for name in ("user 2", "user 3")], store)
    for receipt in parked.receipts:
        confirm([receipt], store.erasures)
    cancel(
        request([Event("user 4", "-", date(2025, 2, 2), (JANUARY, date(2025, 2, 2)))], store).receipts,
        store.state,
        store.erasures,
    )
    publish("mau", date(2025, 1, 31), store)
    publish("dau", date(2025, 2, 3), store)
    restate(JANUARY, store)
    publish("dau", date(2025, 3, 1), store)
    request([Event("user 5", "-", date(2025, 3, 1), (JANUARY, date(2025, 3, 1)), "T-2")], store)
    request([Event("user 6", "-", date(2024, 12, 31))], store)
    apply_and_verify(store)  # and what it has inspected is there in the end
    request([Event("user 6", "-", date(2025, 3, 1))], store)
    with restore_transaction(database) as transaction:
        transaction.close("dau", date(2025, 3, 1), date(2025, 3, 2))
        transaction.close("mau", date(2025, 3, 1), date(2025, 3, 2))
        transaction.note_restore(Restore(date(2025, 3, 1), date(2025, 3, 2), None))
        transaction.lose_epochs([300])
    store.accountant.override(
        Override("cap", "An officer", "Agreed", date(2025, 3, 2), "dau", date(2025, 3, 1), Fraction(7, 2))
    )
    store.accountant.override(Override("erasures_submitted", "An officer", "All are in", date(2025, 3, 3)))


@dataclass
class Tampered:
    """A ledger, and a way to its rows that asks nobody."""

    ledger: SqlLedger
    behind: Engine

    def rows(self, table: Table) -> list[Row]:
        with self.behind.connect() as connection:
            ordered = select(table).order_by(*table.primary_key.columns)
            return [dict(row) for row in connection.execute(ordered).mappings()]

    def do(self, *statements: Any) -> None:
        with self.behind.begin() as connection:
            for statement in statements:
                connection.execute(statement)

    @contextmanager
    def after(self, *statements: Any) -> Iterator[None]:
        """What statements do, inside of the block: their tables are as they were in the end."""
        before = {table: self.rows(table) for table in dict.fromkeys(statement.table for statement in statements)}
        self.do(*statements)
        try:
            yield
        finally:
            self.do(*(delete(table) for table in before))
            self.do(*(insert(table).values(**row) for table, rows in before.items() for row in rows))

    def is_found_after(self, *statements: Any) -> bool:
        with self.after(*statements):
            return self.is_found()

    def is_found(self) -> bool:
        return is_found_in(self.ledger)


def is_found_in(ledger: SqlLedger) -> bool:
    """Named as a problem; or the keys that everything else is read with do not open."""
    try:
        return ledger.problems() != []
    except BadSetting:
        return True


def without_constraints(url: str) -> Engine:
    """For statements that foreign keys would refuse, and whose syncs nobody needs."""
    engine = open_engine(url)
    statements = {
        "sqlite": ("PRAGMA foreign_keys = OFF", "PRAGMA synchronous = OFF"),
        "postgresql": ("SET session_replication_role = replica", "SET synchronous_commit = off"),
    }[engine.dialect.name]

    def prepare_connection(connection: Any, _record: Any) -> None:
        for statement in statements:
            connection.execute(statement)
        connection.commit()

    event.listen(engine, "connect", prepare_connection)
    return engine


def ledger_at(url: str, folder: Path) -> SqlLedger:
    settings = Settings(data_dir=folder, hash_salt_secret=SECRET, ledger_url=url, erasure_guard_share=Fraction(1, 1000))
    database = Database(url, SECRET)
    write_a_ledger(replace(open_store(settings), clock=FixedClock(date(2025, 3, 10))), database)
    return SqlLedger(database)


def ledger_file(folder: Path, prepared: Prepared) -> Path:
    """A ledger with rows in every table, in a file, closed."""

    def fill(empty: Path) -> None:
        with closed_at_the_end():
            ledger_at(f"sqlite:///{empty}/ledger.sqlite", empty)

    return prepared.copy("a ledger to tamper with", fill, folder) / "ledger.sqlite"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, prepared: Prepared) -> Iterator[Tampered]:
    """One ledger a database: every test leaves it as it was."""
    with fast_folder() as folder:
        if request.param == "sqlite":
            url = f"sqlite:///{ledger_file(folder / 'sqlite', prepared)}"
            yield from opened(SqlLedger(Database(url, SECRET)), url)
        else:
            with schema_url() as url:
                yield from opened(ledger_at(url, folder), url)


def opened(ledger: SqlLedger, url: str) -> Iterator[Tampered]:
    tampered = Tampered(ledger, without_constraints(url))
    assert all(tampered.rows(table) for table in TABLES)
    yield tampered
    tampered.behind.dispose()


@pytest.fixture
def tampered(shared: Tampered) -> Iterator[Tampered]:
    assert shared.ledger.problems() == []
    yield shared
    assert shared.ledger.problems() == []


def is_row(table: Table, row: Row) -> Any:
    return and_(*(column == row[column.name] for column in table.primary_key.columns))


def test_numbers_are_chained_as_they_are_read_back(tampered: Tampered) -> None:
    """Some databases keep a whole number otherwise than it was given."""
    table = schema.releases
    before = {changed_table: tampered.rows(changed_table) for changed_table in (table, schema.entries)}
    key = ReleaseKey("dau", 1, JANUARY)
    for number in (-5.0, -0.0, 0.1, 1e300, 2.0**53):
        with tampered.ledger.transaction() as transaction:
            transaction.store(replace(tampered.ledger.releases()[0], key=key, noisy_value=number))
        assert tampered.ledger.problems() == []
        tampered.do(
            delete(table).where(table.c.id > before[table][-1]["id"]),
            delete(schema.entries).where(schema.entries.c.id > before[schema.entries][-1]["id"]),
        )


# --- Values ------------------------------------------------------------------------------------------------------


def changes(value: object, nullable: bool) -> list[list[Any]]:
    """Every small change of a value: for each, some that would do, since the database itself may refuse one."""
    others: list[list[Any]]
    match value:
        case None:
            return [[1, "x", b"x"]]
        case bool():
            others = [[not value]]
        case int():
            others = [[value + 1, value + 1001], [value - 1, value - 1001]]
        case float():
            others = [[struct.unpack("d", bits)[0] for bits in some] for some in flipped(struct.pack("d", value))]
        case str():
            others = [[bits.decode() for bits in some] for some in flipped(value.encode())]
        case bytes():
            others = list(flipped(value))
        case _:
            raise TypeError(value)
    return [*others, [None]] if nullable else others


def flipped(value: bytes) -> Iterator[list[bytes]]:
    """For each byte, the value with one bit of it turned: one of four bits that leave ASCII text what it is."""
    for place in range(len(value)):
        yield [value[:place] + bytes([value[place] ^ bit]) + value[place + 1 :] for bit in (1, 2, 4, 64)]


def sample(choices: Sequence[Any], number: int, step: int) -> Sequence[Any]:
    """Every `step`-th and one at least, if there is one; another `number` takes others."""
    return choices[number % max(1, min(step, len(choices))) :: step]


def sampled_rows(tampered: Tampered, table: Table) -> Sequence[Row]:
    return sample(tampered.rows(table), BEGIN, BUILDS if table is schema.builds else ROWS)


def changed(tampered: Tampered, table: Table, row: Row, column: str, candidates: Sequence[Any]) -> Row:
    """The row as it is from here on, with the first of these values that the database takes."""
    for value in candidates:
        try:
            tampered.do(update(table).where(is_row(table, row)).values({column: value}))
        except SQLAlchemyError:
            continue
        return {**row, column: value}
    raise AssertionError(f"{table.name}.{column} takes none of {candidates}")


def unfound_values(tampered: Tampered) -> Iterator[str]:
    """Every change of a value that is not found."""
    for table in TABLES:
        for number, row in enumerate(sampled_rows(tampered, table), FIRST_BYTE):
            for column in table.columns.values():
                if column in ONLY_ORDER:
                    continue
                for candidates in sample(changes(row[column.name], bool(column.nullable)), number, BYTES):
                    other = changed(tampered, table, row, column.name, candidates)
                    if not tampered.is_found():
                        yield f"{column}: {row[column.name]!r} is {other[column.name]!r}"
                    tampered.do(update(table).where(is_row(table, other)).values(**row))


@pytest.mark.also_long(weight=4)
def test_a_changed_value_is_found(tampered: Tampered) -> None:
    unfound = list(unfound_values(tampered))
    assert not unfound, "\n".join(unfound)


# --- Rows --------------------------------------------------------------------------------------------------------


@pytest.mark.also_long
def test_a_deleted_row_is_found(tampered: Tampered) -> None:
    for table in TABLES:
        for row in sampled_rows(tampered, table):
            assert tampered.is_found_after(delete(table).where(is_row(table, row))), (table.name, row)


@pytest.mark.also_long
def test_two_rows_in_each_others_place_are_found(tampered: Tampered) -> None:
    for table in TABLES:
        if table in NO_ORDER:
            continue
        for first, other in sample(list(pairwise(tampered.rows(table))), BEGIN, ROWS):
            exchanged = [{**row, **place(table, at)} for row, at in ((first, other), (other, first))]
            here = is_row(table, first) | is_row(table, other)
            assert tampered.is_found_after(delete(table).where(here), insert(table).values(exchanged)), (first, other)


def place(table: Table, row: Row) -> Row:
    return {column.name: row[column.name] for column in table.primary_key.columns}


def test_a_row_that_nobody_appended_is_found(tampered: Tampered) -> None:
    for table in TABLES:
        assert tampered.is_found_after(insert(table).values(**another(table, tampered))), table.name


def test_a_number_that_is_gone_with_its_entry_is_found(tampered: Tampered) -> None:
    entries = [row for row in tampered.rows(schema.entries) if row["kind"] == "releases"]
    for entry in entries:
        first, last = entry["first_row"], entry["last_row"]
        assert tampered.is_found_after(
            delete(schema.releases).where(schema.releases.c.id.between(first, last)),
            delete(schema.entries).where(is_row(schema.entries, entry)),
        )


def test_a_chain_that_was_cut_short_does_not_hold_a_head_that_was_noted_down(tampered: Tampered) -> None:
    head, (*_, before, last) = tampered.ledger.head(), tampered.rows(schema.entries)
    assert tampered.ledger.holds(head) and tampered.ledger.holds(before["hash"])
    table = schema.APPENDED[last["kind"]]
    with tampered.after(
        delete(schema.entries).where(is_row(schema.entries, last)), delete(table).where(table.c.id >= last["first_row"])
    ):
        assert tampered.ledger.problems() == []  # nothing else tells it from the ledger that it was then
        assert not tampered.ledger.holds(head) and tampered.ledger.holds(before["hash"])
    with tampered.after(*(delete(table) for table in TABLES)):
        assert not tampered.ledger.holds(head)


def test_rows_without_any_entry_are_found(tampered: Tampered) -> None:
    assert tampered.is_found_after(delete(schema.entries))


def test_a_chain_whose_key_is_gone_is_found(tampered: Tampered) -> None:
    before = tampered.rows(schema.wrapped_keys)
    assert tampered.is_found_after(delete(schema.wrapped_keys).where(schema.wrapped_keys.c.name == LEDGER))
    assert tampered.rows(schema.wrapped_keys) == before  # and looking has made no other


def test_the_list_of_what_was_written_last_is_found_to_be_gone(tampered: Tampered) -> None:
    """The list of the newest builds is missed in part, and when all of it is gone."""
    builds, digests = schema.builds, schema.build_digests
    assert tampered.is_found_after(delete(builds))
    assert tampered.is_found_after(delete(builds), delete(digests))


def test_a_signing_key_that_is_gone_or_another_is_found(tampered: Tampered) -> None:
    """Or another would be made without a word, and no receipt that was handed out would be genuine any more."""
    table = schema.wrapped_keys
    here = table.c.name == RECEIPTS
    assert tampered.is_found_after(delete(table).where(here))
    other = Keyring(SECRET).wrap(RECEIPTS, bytes(KEY_BYTES))
    assert tampered.is_found_after(update(table).where(here).values(wrapped=other))


# --- Prices, secrets, erasures -----------------------------------------------------------------------------------


def test_a_charge_that_names_a_cheaper_instance_is_found(tampered: Tampered) -> None:
    table = schema.charges
    for row in tampered.rows(table):
        for name in {run["name"] for run in tampered.rows(schema.instances)} - {row["instance"]}:
            assert tampered.is_found_after(update(table).where(is_row(table, row)).values(instance=name))


def test_an_instance_that_is_renamed_wherever_it_is_named_is_found(tampered: Tampered) -> None:
    for row in tampered.rows(schema.instances):
        old, new = row["name"], row["name"] + "-cheaper"
        places = [
            schema.instances.c.name,
            schema.charges.c.instance,
            schema.releases.c.instance,
            schema.commitments.c.subject,
            schema.destructions.c.subject,
            schema.shared_noise.c.subject,
            schema.stream_state.c.instance,
        ]
        assert tampered.is_found_after(*(update(c.table).where(c == old).values({c.name: new}) for c in places))


@pytest.mark.parametrize("table", [schema.shared_noise, schema.stream_state])
def test_secret_numbers_of_one_kind_that_were_exchanged_are_found(tampered: Tampered, table: Table) -> None:
    first, other = tampered.rows(table)
    assert tampered.is_found_after(
        update(table).where(is_row(table, first)).values(encrypted=other["encrypted"]),
        update(table).where(is_row(table, other)).values(encrypted=first["encrypted"]),
    )


def test_a_salt_that_was_exchanged_for_another_under_the_same_secret_is_found(tampered: Tampered) -> None:
    for row in tampered.rows(schema.salts):
        wrapped = Keyring(SECRET).wrap(str(row["epoch"]), bytes(KEY_BYTES))
        assert tampered.is_found_after(update(schema.salts).where(is_row(schema.salts, row)).values(wrapped=wrapped))


def test_a_request_that_is_said_to_be_cancelled_is_found(tampered: Tampered) -> None:
    table, stones = schema.erasures, schema.tombstones
    for row in tampered.rows(table):
        if row["state"] != "cancelled":
            assert tampered.is_found_after(
                update(table).where(is_row(table, row)).values(state="cancelled"),
                delete(stones).where(stones.c.erasure == row["id"]),
            )


def test_tombstones_that_are_said_to_be_shredded_with_their_epoch_are_found_to_be_missing(tampered: Tampered) -> None:
    stones = schema.tombstones
    for epoch in {row["epoch"] for row in tampered.rows(stones)}:
        assert tampered.is_found_after(
            insert(schema.retention).values(name="shredded_through", value=epoch),
            delete(stones).where(stones.c.epoch <= epoch),
        )


def test_a_request_that_is_said_to_be_applied_by_the_watermark_alone_is_found(tampered: Tampered) -> None:
    table = schema.erasure_progress
    assert tampered.is_found_after(update(table).where(table.c.name == "applied").values(watermark=10_000))
    added = {**tampered.rows(table)[-1], "id": 10_000, "name": "applied", "watermark": 10_000}
    assert tampered.is_found_after(insert(table).values(**added))


# --- Every table -------------------------------------------------------------------------------------------------


def another(table: Table, tampered: Tampered) -> dict[str, Any]:
    """A row that the table takes beside those that it has: the last one under another name, day or number."""
    row = dict(tampered.rows(table)[-1])
    unique = {column.name for column in table.columns if column.primary_key or column.unique}
    unique |= {
        column.name
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint)
        for column in constraint.columns
    }
    for name in unique:
        row[name] = row[name] + 1000 if isinstance(row[name], int) else f"{row[name]} again"
    if "id" in row:
        row["id"] = 1_000_000
    if "day" in unique:
        row["day"] = "2031-01-01"
    return row


def test_every_table_is_appended_to_or_vouched_for_or_is_written_down_as_harmless_with_the_reason() -> None:
    """A new table fails here until it is in one of the three."""
    places = [*schema.APPENDED, *schema.VOUCHED_FOR, *schema.DERIVED]
    assert sorted(places) == sorted(EVERY)
    assert all(reason.strip() for reason in (*schema.VOUCHED_FOR.values(), *schema.DERIVED.values()))


@pytest.mark.parametrize("name", [table.name for table in TABLES])
def test_a_row_of_any_table_that_is_inserted_or_changed_or_deleted_is_found(tampered: Tampered, name: str) -> None:
    table = EVERY[name]
    row = sampled_rows(tampered, table)[-1]
    column = next(candidate for candidate in table.columns if candidate not in ONLY_ORDER)
    (first, *_) = changes(row[column.name], bool(column.nullable))
    assert tampered.is_found_after(insert(table).values(**another(table, tampered)))
    assert tampered.is_found_after(delete(table).where(is_row(table, row)))
    other = changed(tampered, table, row, column.name, first)
    is_found = tampered.is_found()
    tampered.do(update(table).where(is_row(table, other)).values(**row))
    assert is_found


def test_a_table_that_was_emptied_is_found(tampered: Tampered) -> None:
    for table in TABLES:
        assert tampered.is_found_after(delete(table)), table.name


def test_rows_that_are_written_down_as_harmless_are_no_problem_of_the_ledger(tampered: Tampered) -> None:
    """What they do not decide is asked in test_older_files, with the tables that are."""
    for name in schema.DERIVED.keys() - {"inspections"}:  # which have a test of their own
        table = EVERY[name]
        assert not tampered.is_found_after(delete(table)), name
        assert not tampered.is_found_after(insert(table).values(**made_up(table))), name


def made_up(table: Table) -> dict[str, Any]:
    return {column.name: "2031-01-01" if column.type.python_type is str else 7 for column in table.columns}


def test_an_inspection_that_was_changed_or_made_up_is_found_and_one_that_is_gone_is_read_anew(
    tampered: Tampered,
) -> None:
    table = schema.inspections
    (row,) = tampered.rows(table)
    assert tampered.is_found_after(update(table).values(partitions=row["partitions"][:-1]))
    assert tampered.is_found_after(update(table).values(digest="0" * 64))
    assert tampered.is_found_after(insert(table).values(digest="0" * 64, partitions=row["partitions"]))
    assert not tampered.is_found_after(delete(table))


# --- Bytes of the file -------------------------------------------------------------------------------------------

LEAF, INTERIOR = 13, 5
INDEX_INTERIOR = 2
# Every bit of these is turned in a soak, and one bit of every byte of the others.
PUBLISHED = (schema.releases, schema.charges, schema.instances, schema.overrides)


def records(content: bytes, root: int) -> Iterator[range]:
    """Where the records of a table stand whose tree has this root page (sqlite.org/fileformat2.html, section 1.6).

    A table without row ids is kept as an index is: its cells have no number, and those of inner pages hold records too.
    """
    size = int.from_bytes(content[16:18])
    page = (root - 1) * size
    kind, cells = content[page], int.from_bytes(content[page + 3 : page + 5])
    is_inner, has_ids = kind in (INTERIOR, INDEX_INTERIOR), kind in (INTERIOR, LEAF)
    for n in range(cells):
        pointer = page + (12 if is_inner else 8) + 2 * n
        cell = page + int.from_bytes(content[pointer : pointer + 2])
        if is_inner:
            yield from records(content, int.from_bytes(content[cell : cell + 4]))
        if not (is_inner and has_ids):
            start = cell + (4 if is_inner else 0)
            length, at = varint(content, start)
            if has_ids:
                _row_id, at = varint(content, at)
            assert at + length <= page + size  # on no other page
            yield range(start, at + length)
    if is_inner:
        yield from records(content, int.from_bytes(content[page + 8 : page + 12]))


def varint(content: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where the next one begins."""
    value = content[at] & 0x7F
    while content[at] & 0x80:
        at += 1
        value = value << 7 | content[at] & 0x7F
    return value, at + 1


def never_read(table: Table, content: bytes, record: range) -> int | None:
    """The one byte of a record that SQLite itself never looks at: the type of an id, which is the record's key."""
    if "id" not in table.columns and table is not schema.salts:
        return None
    at = record.start
    for _length_row_id_and_header in range(3):
        _, at = varint(content, at)
    return at


def unfound_bits(path: Path) -> Iterator[str]:
    """Every bit of a record in the file that can be turned without being found."""
    copy = path.with_name("copy.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'"))
    content = path.read_bytes()
    copy.write_bytes(content)
    database = Database(f"sqlite:///{copy}", SECRET)
    ledger = SqlLedger(database)
    assert ledger.problems() == []
    for table in TABLES:
        rows_of_page = list(records(content, roots[table.name]))
        for record in sample(rows_of_page, BEGIN, BUILDS) if table is schema.builds else rows_of_page:
            spared = never_read(table, content, record)
            for place in sample(record, record.start + FIRST_BYTE, BYTES):
                bits = range(8) if table in PUBLISHED and BYTES == 1 else [place % 8]
                for bit in [] if place == spared else bits:
                    database.engine.dispose()
                    copy.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
                    if not is_found_in(ledger):
                        whole = content[record.start : record.stop]
                        yield f"{table.name}: bit {bit} of byte {place - record.start} of {whole!r}"


@pytest.mark.also_long(weight=4)
def test_a_turned_bit_in_a_record_of_the_file_is_found(tmp_path: Path, prepared: Prepared) -> None:
    unfound = list(unfound_bits(ledger_file(tmp_path / "ledger", prepared)))
    assert not unfound, "\n".join(unfound)
