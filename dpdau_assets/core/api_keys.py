"""Keys of the HTTP API: what is kept of one, whom a presented text is, and which keys there may be beside one another.

Of a key only its SHA-256 is kept. That is enough against whoever reads it, since a key is 32 random bytes: there is no
list of likely ones to try.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from hashlib import sha256
from hmac import compare_digest
from typing import Literal, TypeAlias, get_args

from dpdau_assets.core.errors import BadInput, BadSetting, Refused
from dpdau_assets.core.secret_strength import weakness

Scope = Literal["ingest", "erase", "read", "admin"]
KeyState = Literal["valid", "expired", "revoked"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
MOST_VALID = 2  # of one name: the old one and the new one, while clients change over
SERVICE = "service"
"""Name and id of the key that the environment holds; ids of others are 8 hex digits."""

VARIABLE = "SERVICE_API_KEY"
SHORTEST, LONGEST = 32, 256  # characters of a key; a longer text is not even hashed
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

_PLACEHOLDER = re.compile(
    r"\{\{|\}\}|\$[{(]|<[^>]*>|change[-_. ]?(me|this|it)|your[-_. ]?\w*[-_. ]?(key|token|secret)|replace"
    r"|example|placeholder|x{6}",
    re.IGNORECASE,
)
"""Each takes six characters or more, most of them in one order: a random key has none of them, but for one in
millions.
"""
_PERHAPS = re.compile(r"api[-_. ]?key|password|secret|default", re.IGNORECASE)
"""What stands in a placeholder, and in the prefix of a key as well: there something random follows."""
_RANDOM = re.compile(r"[0-9A-Za-z]{22,}")


@dataclass(frozen=True)
class ApiKey:
    """What is kept of a key; it may be used through `expires_on`. A revoked one has no hash: that is destroyed."""

    id: str
    name: str
    sha256: str | None = field(repr=False)
    scopes: frozenset[Scope]
    created_on: date
    expires_on: date | None = None
    revoked_on: date | None = None

    def state(self, today: date) -> KeyState:
        """Whether it may be used today, and if not, why."""
        if self.revoked_on is not None:
            return "revoked"
        return "expired" if self.expires_on is not None and today > self.expires_on else "valid"


NotTaken: TypeAlias = Literal["unknown", "expired"]
"""Why nobody is let in: no key was ever this text, or it was revoked; or the key's last day is over."""


def authenticate(presented: str, keys: Sequence[ApiKey], today: date) -> ApiKey | NotTaken:
    """The valid key that this text is, or else why there is none.

    Every key is compared, each in constant time, also after one was found: time says nothing of which keys there are.
    """
    if not _is_presentable(presented):
        return "unknown"
    digest = hash_of(presented)
    same = [key for key in keys if compare_digest(digest, key.sha256 or "")]
    valid = [key for key in same if key.state(today) == "valid"]
    if valid:
        return valid[0]
    return "expired" if any(key.state(today) == "expired" for key in same) else "unknown"


def hash_of(text: str) -> str:
    """What is kept of a key: 64 hex digits."""
    return sha256(text.encode("ascii")).hexdigest()


# --- Which keys there may be ---------------------------------------------------------------------------------------


def with_new(keys: Sequence[ApiKey], new: ApiKey) -> tuple[ApiKey, ...]:
    """The keys and the new one behind them, as of the day it was made on.

    Raises BadInput for a name, scopes or a last day that no key has, and Refused for a third valid key of one name.
    """
    _require_well_formed(new, keys)
    valid = [key for key in keys if key.name == new.name and key.state(new.created_on) == "valid"]
    if len(valid) >= MOST_VALID:
        raise Refused(
            f"{len(valid)} keys named {new.name} are valid already, and more than {MOST_VALID} may not be.",
            f"Revoke the older one first: `dpdau api-key revoke {valid[0].id}`.",
            name=new.name,
            valid=[key.id for key in valid],
        )
    return (*keys, new)


def with_revoked(keys: Sequence[ApiKey], name_or_id: str, today: date) -> tuple[tuple[ApiKey, ...], tuple[str, ...]]:
    """The keys after those of this name, or the one with this id, were revoked; and the ids of those that now were.

    One that was revoked before stays as it is. Raises BadInput where no key has the name or the id; the text is not
    repeated, since it may be a key that was pasted here.
    """
    named = {key.id for key in keys if name_or_id in (key.name, key.id)}
    if not named:
        raise BadInput(
            "No key has this name, and none this id.",
            "`dpdau api-key list` shows both; a key itself is kept nowhere, and cannot be named here.",
        )
    revoked = tuple(key.id for key in keys if key.id in named and key.revoked_on is None)
    after = (replace(key, sha256=None, revoked_on=today) if key.id in revoked else key for key in keys)
    return tuple(after), revoked


def in_order(scopes: Iterable[Scope]) -> list[Scope]:
    """Scopes as they are shown."""
    wanted = frozenset(scopes)
    return [scope for scope in SCOPES if scope in wanted]


def _require_well_formed(new: ApiKey, keys: Sequence[ApiKey]) -> None:
    if not NAME.fullmatch(new.name) or new.name == SERVICE or any(new.name == key.id for key in keys):
        raise BadInput(
            f"{new.name!r} is no name for a key.",
            f"Take 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`, which are not the id of another key, nor {SERVICE}.",
        )
    if not new.scopes or not new.scopes <= frozenset(SCOPES):
        raise BadInput("A key has one scope or more, and no others than these.", f"Choose from {', '.join(SCOPES)}.")
    if new.expires_on is not None and new.expires_on < new.created_on:
        raise BadInput(
            f"The key's last day, {new.expires_on}, is over.", f"Name {new.created_on}, which is today, or a later one."
        )


# --- The environment's key -----------------------------------------------------------------------------------------


def service_key(text: str) -> ApiKey:
    """The environment's key, which has all scopes and does not expire. Nobody noted since when it is there."""
    return ApiKey(SERVICE, SERVICE, hash_of(text), frozenset(SCOPES), created_on=date.min)


def require_usable(text: str) -> None:
    """Raise BadSetting, which names the variable and the rule but nothing of the text, for what must not be a key."""
    broken = _unusable(text)
    if broken:
        raise BadSetting(f"{VARIABLE}=...: {broken}.", "Take a random one: `openssl rand -hex 32` makes one.")


def _unusable(text: str) -> str | None:
    """The rule that the text breaks as a key."""
    if _PLACEHOLDER.search(text) or (_PERHAPS.search(text) and not _RANDOM.search(text)):
        return "a placeholder, or has one in it, which everybody can guess"
    if len(text) < SHORTEST:
        return f"shorter than {SHORTEST} characters"
    if not _is_presentable(text) or " " in text:
        return f"more than {LONGEST} characters, or others than a header can carry: ASCII without spaces"
    broken = weakness(text)
    return broken and f"{broken}, so it can be guessed"


def _is_presentable(text: str) -> bool:
    """Whether the text can be a key at all."""
    return 0 < len(text) <= LONGEST and text.isascii() and text.isprintable()
