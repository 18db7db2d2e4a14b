"""The commands of the HTTP API's keys, which neither the ledger nor its master secret is needed for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from dpdau_assets.cli.terminal import DAY, answer, tell
from dpdau_assets.core.api_keys import SCOPES, Scope, in_order
from resources.settings_env import read_settings
from resources.storage.api_key_file import api_key_file
from resources.store import SystemClock

app = typer.Typer()
keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke keys of the HTTP API.")
app.add_typer(keys, name="api-key")


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is: 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`.")],
    scopes: Annotated[
        list[str], typer.Option("--scope", help=f"What it is good for: {', '.join(SCOPES)}; may be repeated.")
    ],
    expires: Annotated[datetime | None, typer.Option(formats=DAY, help="Its last day; default: it has none.")] = None,
) -> None:
    """Make a key, and print it: this once, since only its hash is kept.

    Two keys of one name may be valid at once, so that clients change over from one to the other. Exit code 4: two are.
    """
    wanted, settings = _known(scopes), read_settings()
    today, last = SystemClock(settings.timezone).today(), expires and expires.date()
    key, text = api_key_file(settings).add(name, wanted, today, last)
    answer({"name": key.name, "key": text})
    tell(f"Keep it now: it is shown this once. `dpdau api-key revoke {key.id}` ends it.")


@keys.command("list")
def list_keys() -> None:
    """List all keys, in the order in which they were made: name, scopes, days and state, but no key and no hash."""
    settings = read_settings()
    today = SystemClock(settings.timezone).today()
    answer(
        [
            {
                "id": key.id,
                "name": key.name,
                "scopes": in_order(key.scopes),
                "created_on": key.created_on,
                "expires_on": key.expires_on,
                "state": key.state(today),
            }
            for key in api_key_file(settings).read()
        ]
    )


@keys.command()
def revoke(name_or_id: Annotated[str, typer.Argument(help="A name, for all keys of it; or the id of one.")]) -> None:
    """Revoke keys: from now on they are refused, and their hashes are destroyed. They stay listed."""
    settings = read_settings()
    revoked = api_key_file(settings).revoke(name_or_id, SystemClock(settings.timezone).today())
    answer({"revoked": revoked})
    if not revoked:
        tell("All of them were revoked before, and stay so.")


def _known(texts: list[str]) -> frozenset[Scope]:
    """The scopes of these names; wrong usage if one is none."""
    wanted: frozenset[Scope] = frozenset(scope for scope in SCOPES if scope in texts)
    if unknown := sorted(set(texts).difference(wanted)):
        raise typer.BadParameter(f"--scope {unknown[0]} is none of {', '.join(SCOPES)}.")
    return wanted
