"""How people write where a field stands: `userId|context.user.id`, `'+'`, `event=open,login`, `event!=push`.

A name with a comma, a bar, a dot, an equals sign, an exclamation mark or a quote in it stands in double quotes, a
constant in single ones; a quote inside of its like is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.event_shape import FIELDS, ActiveWhen, Field, FieldName

_TOKEN = re.compile(
    r"""\s*(?:"((?:[^"]|"")+)"|('(?:[^']|'')*')|([,|.=]|!=)|([^,|.=!"'\s](?:[^,|.=!"']*[^,|.=!"'\s])?))\s*"""
)
_MAY_BE_CONSTANT = ("op", "day", "ts")
_FIELD_HELP = "Write a column's name, a path with dots, several with | between them, or a constant as '+'."

Token = tuple[str, str]
"""What it is (name, constant or sign), and its text."""


def fields_written(text: str, where: str) -> Mapping[FieldName, Field]:
    """The fields in `user_id=distinct_id,ts=timestamp`. `where` is what messages call the option.

    Raises BadSetting for text that is not so written, a field that events have not, or one that stands twice.
    """
    fields: dict[FieldName, Field] = {}
    for part in _split(_tokens(text, where), ","):
        place = next((place for place, token in enumerate(part) if token == ("sign", "=")), 0)
        name = ".".join(text for kind, text in part[:place] if kind == "name")
        if not place or name in fields:
            raise BadSetting(
                f"{where} {text}: {'a field stands there twice' if place else 'a part names no field'}.",
                "Write it as user_id=distinct_id,ts=timestamp.",
            )
        fields[_known(name, where)] = _field(name, part[place + 1 :], f"{where} {text}")
    return fields


def field_written(name: str, text: str, where: str) -> tuple[FieldName, Field]:
    """One field of a table of columns: its name, and where it stands. Raises BadSetting as fields_written does."""
    return _known(name, where), _field(name, _tokens(text, where), f"{where} {name} = {text}")


def activity_written(text: str, where: str) -> ActiveWhen:
    """What counts, by `event=open,login`, or what does not, by `event!=push`. Raises BadSetting for other text."""
    tokens = _tokens(text, where)
    signs = [place for place, token in enumerate(tokens) if token in (("sign", "="), ("sign", "!="))]
    if len(signs) != 1:
        raise BadSetting(
            f"{where} {text}: not what is compared with what.", "Write it as event=open,login or event!=push."
        )
    values = [_value(part) for part in _split(tokens[signs[0] + 1 :], ",")]
    if None in values:
        raise BadSetting(f"{where} {text}: a value is missing.", "Put values with signs in them in double quotes.")
    is_active = tokens[signs[0]][1] == "="
    return activity(_field(None, tokens[: signs[0]], f"{where} {text}"), cast("list[str]", values), is_active)


def activity(field: Field, values: Sequence[str], are_active: bool) -> ActiveWhen:
    """Activity by the values of a field."""
    return ActiveWhen(field, frozenset(values), are_active)


def column_written(text: str, where: str) -> Field:
    """A column, a path, or several, perhaps with a constant. Raises BadSetting for other text."""
    return _field(None, _tokens(text, where), f"{where} {text}")


def written(field: Field) -> str:
    """A field as it may be written: names are in quotes where they need it."""
    paths = [".".join(map(_name_written, path)) for path in field.paths]
    constant = [] if field.constant is None else ["'" + field.constant.replace("'", "''") + "'"]
    return "|".join([*paths, *constant])


def _paths_of(tokens: Sequence[Token], shown: str) -> Field:
    """A field of paths only."""
    paths = [_path(part) for part in _split(tokens, "|")]
    if None in paths:
        raise BadSetting(f"{shown}: not a column's name.", _FIELD_HELP)
    return Field(tuple(cast("list[tuple[str, ...]]", paths)))


def _field(name: str | None, tokens: Sequence[Token], shown: str) -> Field:
    if name == "op" and tokens in ([("name", "+")], [("name", "-")]):
        return Field(constant=tokens[0][1])  # a shell takes the quotes away
    parts = _split(tokens, "|")
    constant = parts[-1][0][1] if len(parts[-1]) == 1 and parts[-1][0][0] == "constant" else None
    if constant is None:
        return _paths_of(tokens, shown)
    if (name and name not in _MAY_BE_CONSTANT) or (name == "op" and constant not in ("+", "-")):
        raise BadSetting(f"{shown}: {name} cannot be this constant.", "Only op ('+' or '-'), day and ts can be one.")
    paths = _paths_of(tokens[:-2], shown).paths if len(parts) > 1 else ()
    return Field(paths, constant)


def _path(part: Sequence[Token]) -> tuple[str, ...] | None:
    """Names with a dot between each two."""
    names = [text for kind, text in part[::2] if kind == "name"]
    dots = [token for token in part[1::2] if token == ("sign", ".")]
    return tuple(names) if names and len(names) + len(dots) == len(part) and len(part) % 2 else None


def _value(part: Sequence[Token]) -> str | None:
    """A value that is compared with; a dot in it needs no quotes."""
    is_value = part and all(kind != "sign" or text == "." for kind, text in part)
    return "".join(text for _, text in part) if is_value else None


def _known(name: str, where: str) -> FieldName:
    if name not in FIELDS:
        raise BadSetting(f"{where}: events have no field {name}.", f"They have {', '.join(FIELDS)}.")
    return cast(FieldName, name)


def _tokens(text: str, where: str) -> list[Token]:
    tokens, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise BadSetting(f"{where} {text}: cannot be read from character {place + 1} on.", _FIELD_HELP)
        quoted, constant, sign, plain = match.groups()
        if constant is not None:
            tokens.append(("constant", constant[1:-1].replace("''", "'")))
        elif sign is not None:
            tokens.append(("sign", sign))
        else:
            tokens.append(("name", quoted.replace('""', '"') if quoted is not None else plain))
        place = match.end()
    return tokens


def _split(tokens: Sequence[Token], sign: str) -> list[list[Token]]:
    """The tokens between the signs; a part may be empty."""
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token == ("sign", sign):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _name_written(name: str) -> str:
    is_plain = bool(re.fullmatch(r"""[^,|.=!"'\s](?:[^,|.=!"']*[^,|.=!"'\s])?""", name))
    return name if is_plain else '"' + name.replace('"', '""') + '"'
