"""The commands around the ledger itself: whether it holds, its backups, and the way back from one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from dpdau_assets.cli.alerting import tell_of_overrides, tell_of_tampering
from dpdau_assets.cli.terminal import DAY, answer, opened_store, tell
from dpdau_assets.core.budget import verification
from dpdau_assets.core.errors import BadInput, NotPublished
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication import restoring as core
from dpdau_assets.core.restored import Declared
from dpdau_assets.core.security_events import SecurityEvent
from resources.ledger_sql.database import open_engine, schema_version
from resources.published.mart_duckdb import MartFiles
from resources.settings_env import read_settings
from resources.storage import backup_files
from resources.storage.backup_files import Restored
from resources.store import SystemClock, all_marts, ledger_url, open_mart

BROKEN = 4

app = typer.Typer()
_Who = Annotated[str, typer.Option(help="Whose word it is; on record for ever.")]
_Why = Annotated[str, typer.Option(help="What it rests on; on record for ever.")]


@app.command()
def verify_ledger(
    head: Annotated[
        str | None, typer.Option(help="A head that was noted down: what stood before it must still be there.")
    ] = None,
) -> None:
    """Read the whole ledger back: nothing changed, every number paid for, and the mart shows the same numbers.

    Exit code 4: something was found.
    """
    store = _living()
    problems = verification.problems(store.settings, store.accountant, open_mart(store.settings).read())
    if head is not None and not store.accountant.holds(head):
        problems.append(f"{head} is no head of this ledger: its newest rows were cut off, or it is another one.")
    answer({"holds": not problems, "problems": problems, "head": store.accountant.head()})
    if problems:
        tell_of_tampering({SecurityEvent("tampering_found", f"verify-ledger: {len(problems)} problem(s)."): 1}, store)
        raise typer.Exit(BROKEN)


@app.command()
def backup(target: Annotated[Path, typer.Option("--to", help="A new folder, outside DATA_DIR.")]) -> None:
    """Write one consistent backup of the ledger and of the live files, whole or not at all.

    It holds people who are erased later, so it expires with the deadline of erasures: delete it by then.
    """
    manifest = backup_files.back_up(target, _living())
    answer(
        {
            "backup": str(target),
            "files": len(manifest.files),
            "made_on": manifest.made_on,
            "expires_on": manifest.expires_on,
            "head": manifest.head,
            "last_published": manifest.last_published,
        }
    )


@app.command()
def restore(
    source: Annotated[Path, typer.Option("--from", help="A folder that `dpdau backup` made.")],
    mart: Annotated[Path | None, typer.Option(help="A folder of a mart that was saved; default: the store's.")] = None,
    published_through: Annotated[
        datetime | None,
        typer.Option(formats=DAY, help="No day after this one was published. Default: yesterday may have been."),
    ] = None,
    who: _Who = "",
    why: _Why = "",
) -> None:
    """Restore into an empty ledger, and into a DATA_DIR without live files; where there are some, they are kept.

    Every number that may have come out since the backup counts as published: its months are charged and closed, and
    those that the mart shows are taken back. Nothing is published before `reopen`. For a store that publishes
    the past, say how far it had come: --published-through. See docs/backup.md.
    """
    if bool(published_through) != bool(who and why):
        raise typer.BadParameter("--published-through, --who and --why belong together.")
    settings = read_settings()
    marts = [*([] if mart is None else [_saved_mart(mart)]), *all_marts(settings)]
    shown = list({row.key: row for place in reversed(marts) for row in place.read()}.values())
    declared = Declared(published_through.date(), who, why) if published_through else None
    done = backup_files.restore(source, settings, SystemClock(settings.timezone), shown, declared)
    closed = [{"metric": metric, "month": f"{month:%Y-%m}"} for metric, month in done.closed]
    answer(
        {
            "made_on": done.made_on,
            "head": done.head,
            "maybe_published": done.lost,
            "taken_back": done.taken_back,
            "by_metric": _by_metric(done.maybe_published),
            "closed": closed,
            "lost_epochs": done.lost_epochs,
            "files": "kept" if done.files_kept else "restored",
        }
    )
    if done.lost_epochs:
        epochs = ", ".join(map(str, done.lost_epochs))
        tell(
            f"The keys of salt epoch {epochs} are lost: no number can be made of their days any more. Remove their "
            "files, and `dpdau discard` the waiting batches that hold them; or begin again without live files, and "
            "ingest the events since."
        )
    _tell_closed(done)
    tell(
        "Hand in every erasure request since the backup again, `dpdau flush-deletes`, and then "
        "`dpdau reopen --who NAME --why TEXT`: until then nothing is published.",
        style="bold",
    )


@app.command()
def reopen(who: _Who, why: _Why) -> None:
    """Declare that every erasure request since the restored backup was submitted again, and let publishing go on."""
    store = opened_store()
    core.reopen(who, why, store.clock, store.accountant)
    tell_of_overrides(store)
    answer({"reopened": True})


@app.command()
def migrate() -> None:
    """Bring the ledger of an earlier version up to date, in one transaction; stop everything else that uses it.

    Run it with the caps and the DELTA that its numbers were published under.
    """
    from resources.ledger_sql.migration import migrate as migrate_ledger  # with Alembic, which nobody else needs

    settings = read_settings()
    before, now = migrate_ledger(ledger_url(settings), settings)
    answer({"from": before, "to": now})


def _by_metric(maybe: list[core.MaybePublished]) -> list[dict[str, object]]:
    return [
        {
            "metric": lost.metric,
            "maybe_published": lost.numbers,
            "taken_back": lost.taken_back,
            "months_closed": len(lost.months),
            "first_closed": f"{lost.months[0]:%Y-%m}",
            "last_closed": f"{lost.months[-1]:%Y-%m}",
        }
        for lost in maybe
    ]


def _tell_closed(done: Restored) -> None:
    taken = " and ".join(map(str, done.maybe_published))
    tell(f"Taken for published since {done.made_on}: {taken or 'nothing'}.", style="bold")
    if done.lost:
        tell(f"The mart gave {done.taken_back} of them back.")
        tell(
            "If less was published, begin again with --published-through before you reopen: docs/backup.md says how.",
            style="bold",
        )


def _living() -> Store:
    """The store, but never one that is made here: an empty ledger would hold, and tell nothing."""
    url = ledger_url(read_settings())
    if schema_version(open_engine(url)) is None:
        raise NotPublished("There is no ledger here.", "Check DATA_DIR and LEDGER_URL; the first ingest makes it.")
    return opened_store()


def _saved_mart(folder: Path) -> MartFiles:
    if not (folder / "active_users.duckdb").is_file():
        raise BadInput(f"There is no mart in {folder}.", "Name the folder of active_users.duckdb.")
    return MartFiles(folder)
