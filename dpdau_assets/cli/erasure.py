"""The commands around erasure: requests, receipts, retention, and the master secret."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from dpdau_assets.cli.terminal import DAY, answer, opened_store, run_through_dagster, tell
from dpdau_assets.core.budget.settings_check import SHORTEST_SECRET
from dpdau_assets.core.erasure import receipts, requests, retention
from dpdau_assets.core.erasure.requests import Requested
from dpdau_assets.core.errors import BadInput, BadSetting
from dpdau_assets.core.events import Event, Limits, limits_of
from dpdau_assets.core.facts import ErasureState
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.runs import building
from dpdau_assets.core.reporting.answers import erasure_rows
from dpdau_assets.core.reporting.taken import ALIKE, requests_taken
from dpdau_assets.core.secret_strength import require_strong
from dpdau_assets.core.state import touched
from dpdau_assets.core.state.limits import first_day, last_day
from dpdau_assets.core.state.vouched_state import RESTORE

NOT_YET, NOT_DONE, NOT_GENUINE = 3, 4, 5
app = typer.Typer()
_Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Receipts, or batches of requests.")]


@app.command()
def erase(
    user_id: Annotated[
        str | None,
        typer.Option(help="Who. It lands in the shell's history and the process list; - reads it from stdin instead."),
    ] = None,
    source: Annotated[Path | None, typer.Option("--from", help="A CSV or JSON Lines file of requests, or .gz.")] = None,
    through: Annotated[
        datetime | None, typer.Option(formats=DAY, help="Last day to erase; default: tomorrow, the last there can be.")
    ] = None,
    days: Annotated[list[datetime] | None, typer.Option(formats=DAY, help="Just this day; may be repeated.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="What you call it, such as a ticket: 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`.")
    ] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="Even more people than the guard lets through.")] = False,
) -> None:
    """Ask for people to be erased. The answer is alike whether anyone knows them or not.

    Ids are compared byte by byte, unless USER_ID_NORMALIZE says otherwise: a receipt says nothing of another spelling.

    Recorded durably now, and applied by the next release or by `flush-deletes`. Exit code 4: recorded, but more people
    at once than ERASURE_GUARD_SHARE allows, so they are parked until they are confirmed.
    """
    if (user_id is None) == (source is None):
        raise typer.BadParameter("Say who: either --user-id or --from.")
    if (through and days) or (source and (through or days or reference)):
        raise typer.BadParameter("Say it once: --through, --days and --reference, or the columns of the file.")
    store = opened_store()
    asked, alike = _of_file(source, store) if source else (_of_one(user_id, through, days, reference, store), ())
    done = requests.request(asked, store, confirmed=confirm)
    answer(requests_taken(done, alike))
    tell_passed_over(done)
    if not store.settings.user_id_normalize:
        tell("Ids are compared byte by byte: who is known by another spelling of one has to be named by that too.")
    if alike:
        tell(f"Line(s) {', '.join(map(str, alike))}: {ALIKE}")
    if done.parked:
        tell_parked(done)
        raise typer.Exit(NOT_DONE)


@app.command()
def confirm(names: _Names) -> None:
    """Bring parked requests into force."""
    store = opened_store()
    erasures = requests.confirm(names, store.erasures)
    in_force = [erasure for erasure in erasures if erasure.state != "cancelled"]
    answer({"confirmed": len(in_force), "erasures": erasure_rows(erasures, store.clock, store.erasures)})
    if len(in_force) < len(erasures):
        tell("Some were cancelled, and stay so: ask for these people again with `dpdau erase`.")


@app.command()
def cancel(names: _Names) -> None:
    """Forget requests. Exit code 4, and none forgotten: one of them is being applied, or has been."""
    store = opened_store()
    erasures = requests.cancel(names, store.state, store.erasures)
    answer({"cancelled": len(erasures), "erasures": erasure_rows(erasures, store.clock, store.erasures)})


@app.command()
def erasures(state: Annotated[ErasureState | None, typer.Option(help="Only these; default: all.")] = None) -> None:
    """List erasure requests, in order of arrival: where each stands, and until when it has to be done."""
    store = opened_store()
    rows = erasure_rows(store.erasures.ledger.erasures([state] if state else []), store.clock, store.erasures)
    answer(rows)
    if overdue := sum(row.is_overdue for row in rows):
        tell(f"{overdue} past the deadline: `dpdau flush-deletes`, and `dpdau confirm` for parked ones.")


@app.command()
def receipt(
    name: Annotated[str | None, typer.Argument(metavar="ID", help="The receipt of a request.")] = None,
    reference: Annotated[str | None, typer.Option(help="The receipts of all requests with this reference.")] = None,
    check: Annotated[Path | None, typer.Option(help="The file of a receipt: was it signed here, as it is?")] = None,
) -> None:
    """Read everything back, now, for one request, and show the signed receipt.

    Exit codes: 0 verified, 3 not applied yet, 4 something was found that should be gone; of --check: 0 genuine, 5 not.
    """
    if [name, reference, check].count(None) != 2:
        raise typer.BadParameter("Give the ID of a request, --reference T or --check FILE.")
    store = opened_store()
    if reference is not None:
        together = receipts.receipts_of(reference, store)
        answer(together)
        _exit_as(together["receipts"])
        return
    if check:
        genuine = receipts.is_genuine(_document(check), store.state.salts.signing_key())
        answer({"genuine": genuine})
        raise typer.Exit(0 if genuine else NOT_GENUINE)
    document = receipts.receipt(str(name), store)
    answer(document)
    _exit_as([document])


@app.command()
def flush_deletes() -> None:
    """Apply every request in force, rebuild the days, read everything back, write receipts.

    Exit code 4: something was found that should be gone (`receipt ID` names it), or a file that cannot be repaired.
    """
    store = opened_store()
    repaired, _ = receipts.apply(store)
    days = [day for day, _ in touched.days_to_rebuild(store)]
    try:
        if days:
            tell("All requests are applied. What follows tells Dagster; if it fails, they are read back all the same.")
            run_through_dagster("Rebuilding", building(days), store)
    finally:  # after it, so that no day is left waiting when the receipts say that nothing is left
        done = receipts.apply_and_verify(store)
    answer(
        {
            "verified": done.verified,
            "unverified": done.unverified,
            "days_rebuilt": len(days),
            "older_files": {"repaired": [*repaired, *done.repaired], "broken": done.broken},
        }
    )
    if repaired or done.repaired:
        tell(f"{len(repaired) + len(done.repaired)} file(s) were older than the ledger, and are up to date again.")
    if done.broken:
        tell(f"{len(done.broken)} file(s) lack events that came later, or are gone. {RESTORE}")
        raise typer.Exit(NOT_DONE)
    if done.unverified:
        tell("Something is left of some: `dpdau receipt ID` says where.")
        raise typer.Exit(NOT_DONE)


@app.command()
def purge() -> None:
    """Unlink the days that RETENTION_DAYS lets go of, and shred the keys of epochs that are over.

    Exit code 4, and nothing purged: a number that reads one of these days is missing.
    """
    gone = retention.purge(opened_store())
    answer({"purged_through": gone.isoformat() if gone else None})


@app.command()
def rotate_salt(
    source: Annotated[
        typer.FileBinaryRead, typer.Option("--new-secret-from", help="A file that holds the new secret; - is stdin.")
    ],
) -> None:
    """Wrap every key under a new master secret. Keys, state and receipts stay as they are.

    Stop Dagster first: from here on only the new HASH_SALT_SECRET opens the store.
    """
    new_secret = _secret(source.read())
    opened_store().state.salts.rewrap(new_secret)
    answer({"rewrapped": True})
    tell("Set HASH_SALT_SECRET to the new secret now, everywhere: the old one opens this store no more.", style="bold")


def tell_parked(requested: Requested) -> None:
    """Say what was parked and how it is let through."""
    batches = " ".join(requested.batches)
    tell(
        "Parked, and not in force: more people than ERASURE_GUARD_SHARE of the last MAU lets through at once.\n"
        f"If they are meant, `dpdau confirm {batches}`, or erase again with --confirm.",
        style="bold",
    )


def tell_passed_over(requested: Requested) -> None:
    """Say so if days were passed over."""
    if any(requested.passed_over):
        tell("Days that were asked for and can hold nothing, before START_DATE or past retention, are in passed_over.")


def _exit_as(documents: Sequence[receipts.Document]) -> None:
    """Say what these receipts come to, and exit so: something is left of one, one is not verified, or neither."""
    if any(document["survivors"] for document in documents):
        tell(
            "Something is left: see survivors. What waits in inbox/ goes with `dpdau flush-deletes`; "
            "files that this project did not write are yours to remove. Then ask again."
        )
        raise typer.Exit(NOT_DONE)
    for state in dict.fromkeys(document["state"] for document in documents if not document["verified"]):
        if state == "cancelled":
            tell("It was cancelled: nobody was erased for it.")
        else:
            tell(f"It is {state}: there is nothing to verify before it is applied.")
    if not all(document["verified"] for document in documents):
        raise typer.Exit(NOT_YET)


def _of_file(source: Path, store: Store) -> tuple[Sequence[Event], Sequence[int]]:
    """The requests, and the lines to warn of."""
    from resources.reading.erasure_files import read_requests

    requests = read_requests(source, _limits(store))
    return requests.asked, requests.alike


def _of_one(
    user_id: str | None,
    through: datetime | None,
    days: list[datetime] | None,
    reference: str | None,
    store: Store,
) -> Sequence[Event]:
    from resources.reading.erasure_files import request_of

    fields = {
        "user_id": _id_from_stdin() if user_id == "-" else user_id,
        "through": f"{through:%Y-%m-%d}" if through else None,
        "days": [f"{day:%Y-%m-%d}" for day in days] if days else None,
        "reference": reference,
    }
    asked = request_of(fields, _limits(store))
    if isinstance(asked, str):
        raise BadInput(asked, "Nothing was taken.")
    return [asked]


def _limits(store: Store) -> Limits:
    return limits_of(store.settings, first_day(store.settings, store.accountant), last_day(store.clock))


def _id_from_stdin() -> str:
    """Bytes that are no UTF-8 stay recognisable as such, so that the rules for events refuse them."""
    text = sys.stdin.buffer.read().decode(errors="surrogateescape").removesuffix("\n").removesuffix("\r")
    if "\n" in text:
        raise BadInput("There is more than one line on stdin.", "Hand in one id, or a file of requests with --from.")
    return text


def _document(path: Path) -> receipts.Document:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path} cannot be opened: {error.strerror}.", "Name a receipt's file.") from None
    except (ValueError, RecursionError):
        raise BadInput(f"{path} is not JSON.", "Name the file of one receipt, as `dpdau receipt` prints it.") from None
    return document if isinstance(document, dict) else {}


def _secret(content: bytes) -> str:
    """One word: what stands in an environment or in .env must read back the same."""
    try:
        (word,) = content.decode().split()
    except ValueError:
        raise BadSetting("The new secret is not one word.", "Make one with `openssl rand -hex 32`.") from None
    if len(word) < SHORTEST_SECRET:
        raise BadSetting(f"The new secret is shorter than {SHORTEST_SECRET} characters.", "`openssl rand -hex 32`.")
    require_strong(word)
    return word
