"""Fails where a deployment's secrets are missing, placeholders or guessable, or where dpdau would refuse its settings.

Usage: python tools/ci_config_guard.py [FILE...] [--files-alone] [--require NAME]...

FILE is an env file, such as .env or docker/.env; of two the later one counts, and the environment before both, as for
compose. --files-alone leaves the environment out. --require names a variable that has to be there besides. The rules
are dpdau's own. No value is ever printed: what is wrong is told by name, rule and remedy.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values

from dpdau_assets.cli.serve import require_keys
from dpdau_assets.core.api_keys import VARIABLE as SERVICE_KEY
from dpdau_assets.core.api_keys import require_usable
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.secret_strength import VARIABLE as SALT_SECRET
from dpdau_assets.core.secret_strength import require_strong, weakness
from resources.settings_env import Environment, read_settings

LEDGER, PASSWORD = "LEDGER_URL", "POSTGRES_PASSWORD"
RANDOM = "Take a random one: `openssl rand -hex 32` makes one."
OF_A_STORE = f"{RANDOM} A living store gets another one by `dpdau rotate-salt` alone."
SETTINGS = frozenset(name.upper() for name in Environment.model_fields)

_TOKEN = re.compile(r"\{\{[A-Z][A-Z0-9_]*\}\}")
_NAMED = re.compile(r"(?:^|[;\n]\s*)([A-Z][A-Z0-9_]*)=")


@dataclass(frozen=True)
class Finding:
    """What is wrong with a variable, in words that say nothing of its value."""

    variable: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.variable}: {self.rule}. {self.remedy}"


def main(arguments: Sequence[str]) -> int:
    """Print every finding and return 1, or return 0; 2 for a file that cannot be read."""
    parser = ArgumentParser(description="Fails on secrets that are missing, placeholders or guessable.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--files-alone", action="store_true", help="leave the environment out")
    parser.add_argument("--require", action="append", default=[], metavar="NAME", help="a variable that has to be set")
    options = parser.parse_args(arguments)
    unreadable = [path for path in options.files if not _is_readable(path)]
    if unreadable:
        print(f"{', '.join(map(str, unreadable))}: not a text file that can be read. Name env files.", file=sys.stderr)
        return 2
    values = gathered(options.files, {} if options.files_alone else os.environ)
    found = [*findings(values, options.require)]
    for finding in found:
        print(finding, file=sys.stderr)
    if not found:
        print("Secrets and settings: usable.")
    return 1 if found else 0


def _is_readable(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return True


def gathered(files: Sequence[Path], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of files and environment by name; a name without a value is empty."""
    values: dict[str, str] = {}
    for path in files:
        values |= {name: value or "" for name, value in dotenv_values(path, interpolate=False).items()}
    return values | dict(environment)


def findings(values: Mapping[str, str], required: Sequence[str] = ()) -> Iterator[Finding]:
    """Everything that is wrong, secrets first; what the settings as a whole break, once each is right by itself."""
    secrets = [*_of_secrets(values, required)]
    yield from secrets
    wrong = {finding.variable for finding in secrets}
    tokens = [name for name in sorted(values) if name not in wrong and _TOKEN.search(values[name])]
    yield from (Finding(name, "still a placeholder", "Fill it in: Placeholders.md says with what.") for name in tokens)
    yield from (finding for finding in _of_settings(values) if finding.variable not in wrong.union(tokens))


def _of_secrets(values: Mapping[str, str], required: Sequence[str]) -> Iterator[Finding]:
    yield from _judged(SALT_SECRET, values.get(SALT_SECRET, ""), _salt_secret_rule, OF_A_STORE)
    if key := values.get(SERVICE_KEY, ""):
        yield from _judged(SERVICE_KEY, key, _key_rule)
    elif not _has_key_file(values):
        yield Finding(SERVICE_KEY, "not set, and no file of keys has one that is valid", RANDOM)
    if PASSWORD in values or PASSWORD in required:
        yield from _judged(PASSWORD, values.get(PASSWORD, ""), _password_rule)
    if url := values.get(LEDGER, ""):
        yield from _of_ledger(url)
    for name in required:
        if name not in (SALT_SECRET, SERVICE_KEY, PASSWORD) and not values.get(name):
            yield Finding(name, "not set", "Set it: docs/settings.md says to what.")
    yield from _shared(values)


def _judged(name: str, value: str, rule_of: Callable[[str], str | None], remedy: str = RANDOM) -> Iterator[Finding]:
    rule = rule_of(value) if value else "not set"
    if rule:
        yield Finding(name, rule, remedy)


def _key_rule(text: str) -> str | None:
    """The rule that a text breaks as a key of the API."""
    try:
        require_usable(text)
    except BadSetting as error:
        return _without_name(error)
    return None


def _salt_secret_rule(text: str) -> str | None:
    """The rule that a text breaks as the secret of a new store."""
    try:
        require_strong(text)
    except BadSetting as error:
        return _placeholder_rule(text) or _without_name(error)
    return _placeholder_rule(text)


def _password_rule(text: str) -> str | None:
    broken = weakness(text)
    return _placeholder_rule(text) or (broken and f"{broken}, so it can be guessed")


def _placeholder_rule(text: str) -> str | None:
    """The one rule of keys that every secret has to keep."""
    rule = _key_rule(text)
    return rule if rule and rule.startswith("a placeholder") else None


def _without_name(error: BadSetting) -> str:
    return error.reason.partition("=...: ")[2].removesuffix(".")


def _of_ledger(url: str) -> Iterator[Finding]:
    if url.startswith("sqlite:"):
        return
    try:
        password = unquote(urlsplit(url).password or "")
    except ValueError:
        yield Finding(LEDGER, "not an address", "Set postgresql://user:password@host/database.")
        return
    rule = "without a password" if not password else _password_rule(password)
    if rule:
        yield Finding(LEDGER, f"its password is {rule}" if password else rule, RANDOM)


def _shared(values: Mapping[str, str]) -> Iterator[Finding]:
    """A secret that two variables share is lost in both at once."""
    names = [name for name in (SALT_SECRET, SERVICE_KEY, PASSWORD) if values.get(name)]
    for at, name in enumerate(names):
        same = [other for other in names[:at] if values[other] == values[name]]
        if same:
            yield Finding(name, f"the same as {same[0]}", RANDOM)


def _has_key_file(values: Mapping[str, str]) -> bool:
    try:
        with _environment_of(values):
            require_keys(read_settings())
    except BadSetting:
        return False
    return True


def _of_settings(values: Mapping[str, str]) -> Iterator[Finding]:
    """The variables that dpdau itself would refuse. Its own sentences hold values, and are not repeated."""
    try:
        with _environment_of(values):
            read_settings()
    except BadSetting as error:
        told = error.fields.get("variables")
        names = told if isinstance(told, list) else _NAMED.findall(error.reason)
        for name in sorted({*names} & SETTINGS) or ["settings"]:
            yield Finding(name, "dpdau would refuse it", "Correct it: docs/settings.md; `dpdau status` says the rule.")


@contextmanager
def _environment_of(values: Mapping[str, str]) -> Iterator[None]:
    """The process has these variables alone, and no .env beside it; paths are read from where it stands."""
    here, kept = Path.cwd(), dict(os.environ)
    chosen = {name: value for name, value in values.items() if name.upper() in SETTINGS and value}
    for name in ("DATA_DIR", "API_KEYS_FILE"):
        if name in chosen or name == "DATA_DIR":
            chosen[name] = str(here / chosen.get(name, "data"))
    with TemporaryDirectory() as empty, chdir(empty):
        os.environ.clear()
        os.environ.update(chosen)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
