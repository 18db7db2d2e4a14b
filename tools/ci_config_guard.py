"""For whoever deploys, and for the pipeline that does: run before anything starts, it fails where secrets are missing,
placeholders or guessable, or where dpdau would refuse the settings. The name says where it is run, not what it reads.

Usage: python tools/ci_config_guard.py [FILE...] [--compose FILE] [--files-alone] [--require NAME]...

FILE is an env file, such as .env or docker/.env; of two the later one counts, and the environment before both, as for
compose. --compose names the compose file that they are filled in for: what it asks for has to be there, the env files
that it hands on (docker/settings.env) are read too, and a variable that has no effect where it stands is told.
--files-alone leaves the environment out. --require names a variable that has to be there besides. The rules are dpdau's
own. What is wrong is told by name, rule and remedy, and never with the value that breaks the rule.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

import yaml
from dotenv import dotenv_values

from dpdau_assets.cli.serve import require_keys
from dpdau_assets.core.api_keys import VARIABLE as SERVICE_KEY
from dpdau_assets.core.api_keys import require_usable
from dpdau_assets.core.budget.settings_check import is_ledger
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.secret_strength import VARIABLE as SALT_SECRET
from dpdau_assets.core.secret_strength import require_strong, weakness
from resources.settings_env import Environment, read_settings

LEDGER, PASSWORD = "LEDGER_URL", "POSTGRES_PASSWORD"
RANDOM = "Take a random one: `openssl rand -hex 32` makes one."
OF_A_STORE = f"{RANDOM} A living store gets another one by `dpdau rotate-salt` alone."
_CORRECT = "Correct it: docs/settings.md says what it means."
SETTINGS = frozenset(name.upper() for name in Environment.model_fields)

_IN_AN_ADDRESS = re.compile(r"[A-Za-z0-9._~-]+")
_ASKED = re.compile(r"\$\{([A-Z_]+)(:\?)?")
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


@dataclass(frozen=True)
class Compose:
    """What a compose file does with variables: none at all, where there is no compose.

    Attributes:
        sets: the variables that it sets itself in services, with a value of its own or one that it asks for.
        asks: those that it takes from its env file and the environment.
        requires: those of them without which it does not start.
        hands_on: env files that it gives to services as they are, of those that are there.
    """

    sets: frozenset[str] = frozenset()
    asks: frozenset[str] = frozenset()
    requires: tuple[str, ...] = ()
    hands_on: Mapping[Path, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Compose:
        """What the file at this path does with them. Raises ValueError for what is no compose file."""
        text = path.read_text(encoding="utf-8")
        try:
            services = [*yaml.safe_load(text)["services"].values()]
        except (yaml.YAMLError, KeyError, TypeError, AttributeError):
            raise ValueError(path) from None
        named = [each for service in services for each in service.get("env_file", ())]
        files = {path.parent / (each if isinstance(each, str) else each["path"]) for each in named}
        asked = _ASKED.findall(text)
        return cls(
            frozenset(name for service in services for name in service.get("environment", ())),
            frozenset(name for name, _ in asked),
            tuple(dict.fromkeys(name for name, required in asked if required)),
            {file: _values_in(file) for file in sorted(files) if file.exists()},
        )


def main(arguments: Sequence[str]) -> int:
    """Print every finding and return 1, or return 0; 2 for a file that cannot be read."""
    parser = ArgumentParser(description="Fails on secrets that are missing, placeholders or guessable.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--compose", type=Path, metavar="FILE", help="the compose file that they are filled in for")
    parser.add_argument("--files-alone", action="store_true", help="leave the environment out")
    parser.add_argument("--require", action="append", default=[], metavar="NAME", help="a variable that has to be set")
    options = parser.parse_args(arguments)
    unreadable = [path for path in options.files if not _is_readable(path)]
    if unreadable:
        print(f"{', '.join(map(str, unreadable))}: not a text file that can be read. Name env files.", file=sys.stderr)
        return 2
    try:
        compose = Compose.read(options.compose) if options.compose else Compose()
    except (OSError, ValueError):
        print(f"{options.compose}: not a compose file that can be read. Name docker/compose.yaml.", file=sys.stderr)
        return 2
    values = gathered([*compose.hands_on, *options.files], {} if options.files_alone else os.environ)
    misplaced = [*_misplaced(options.files, compose)] if options.compose else []
    found = [*findings(values, [*compose.requires, *options.require]), *misplaced]
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
        values |= _values_in(path)
    return values | dict(environment)


def _values_in(path: Path) -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(path, interpolate=False).items()}


def _misplaced(files: Sequence[Path], compose: Compose) -> Iterator[Finding]:
    """Variables that nobody would see an effect of: set in two places, or in the one that is not read."""
    for path, values in compose.hands_on.items():
        for name in sorted(values.keys() & compose.sets):
            remedy = "Set it in docker/.env alone." if name in compose.asks else "Leave it out."
            yield Finding(name, f"without effect in {path.name}, since compose sets it", remedy)
    there = {name for path in files for name in _values_in(path)} & SETTINGS - compose.asks
    for name in sorted(there):
        remedy = "Leave it out: compose sets it." if name in compose.sets else "Set it in docker/settings.env."
        yield Finding(name, "without effect here, since compose does not ask for it", remedy)


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
        yield from _judged(PASSWORD, values.get(PASSWORD, ""), _database_password_rule)
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


def _database_password_rule(text: str) -> str | None:
    """The rule that a text breaks as a password that becomes part of an address, unencoded."""
    if broken := _password_rule(text):
        return broken
    return None if _IN_AN_ADDRESS.fullmatch(text) else "of other characters than letters, digits and - . _ ~"


def _placeholder_rule(text: str) -> str | None:
    """The one rule of keys that every secret has to keep."""
    rule = _key_rule(text)
    return rule if rule and rule.startswith("a placeholder") else None


def _without_name(error: BadSetting) -> str:
    return error.reason.partition("=...: ")[2].removesuffix(".")


def _of_ledger(url: str) -> Iterator[Finding]:
    if url.startswith("sqlite:") or not is_ledger(url):  # which the settings' own rules tell
        return
    password = unquote(urlsplit(url).password or "")
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
    """The variables that dpdau itself would refuse, and the rules. Its own sentences hold values: none is repeated."""
    try:
        with _environment_of(values):
            read_settings()
    except BadSetting as error:
        names, rules = error.fields.get("variables"), error.fields.get("rules")
        if isinstance(names, list) and isinstance(rules, list):
            yield from (Finding(name, rule, _CORRECT) for name, rule in zip(names, rules, strict=True))
            return
        for name in sorted({*_NAMED.findall(error.reason)} & SETTINGS) or ["settings"]:
            yield Finding(name, "not of its kind, such as a number, a day or a path", _CORRECT)


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
