"""Options that several verbs share, and how the texts people type become keys, times and values."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from oomstream.agents.cli.output import OutputFormat

if TYPE_CHECKING:
    from oomstream.schemas.groups import KeyField
    from oomstream.schemas.types import ValueType


def complete_entity(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of entities, for the shell; none on any error."""
    return _complete(ctx, "entity", incomplete)


def complete_group(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of groups, for the shell; none on any error."""
    return _complete(ctx, "group", incomplete)


def complete_feature(ctx: typer.Context, incomplete: str) -> list[str]:
    """Full names of features, for the shell; none on any error."""
    return _complete(ctx, "feature", incomplete)


def complete_features(ctx: typer.Context, incomplete: str) -> list[str]:
    """Full names of features after those that the word names already, for the shell; none on any error."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{each}" for each in _complete(ctx, "feature", last)]


def complete_of_kind(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of what the line's argument `kind` says, for the shell; none on any error."""
    return _complete(ctx, str(ctx.params.get("kind", "")), incomplete)


def _complete(ctx: typer.Context, kind: str, incomplete: str) -> list[str]:
    from oomstream.agents.cli.completion import names_of

    return [each for each in names_of(kind, ctx.find_root().params) if each.startswith(incomplete)]


Output = Annotated[
    OutputFormat,
    typer.Option("--output", "-o", metavar="FORMAT", help=f"How to print it: {', '.join(OutputFormat)}."),
]
Features = Annotated[
    list[str],
    typer.Option(
        "--feature",
        metavar="G.F,…",
        help="Features by full name, separated by commas; repeatable.",
        show_default=False,
        autocompletion=complete_features,
    ),
]
Keys = Annotated[
    list[str],
    typer.Option(
        "--entity-key",
        "-k",
        metavar="KEY",
        help="Entity keys: K1,K2 or, where a key has several fields, f1=v1,f2=v2; repeatable.",
        show_default=False,
    ),
]
InputFile = Annotated[
    Path,
    typer.Option(
        "--input-file",
        metavar="LABELS",
        help="Label rows: .parquet or .arrow, else CSV; with the key fields and event_timestamp or unix_milli.",
        exists=True,
        dir_okay=False,
        readable=True,
        show_default=False,
    ),
]


def split_features(texts: Iterable[str]) -> list[str]:
    """Feature names of the given `--feature` options, in the order asked.

    Raises:
        typer.BadParameter: There is an empty name.
    """
    names = [name.strip() for text in texts for name in text.split(",")]
    if not all(names):
        raise typer.BadParameter("an empty feature name (write group.feature,group.feature)", param_hint="--feature")
    return names


def parse_time(text: str) -> datetime:
    """A time as people write it: RFC 3339, a date, or integer Unix milliseconds; without an offset it is UTC.

    Raises:
        typer.BadParameter: The text is none of these.
    """
    try:
        if re.fullmatch(r"-?\d{9,15}", text):
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError) as exc:
        raise typer.BadParameter(
            f"{text!r} is not a time such as 2013-07-01T12:00:00Z, 2013-07-01 or Unix milliseconds"
        ) from exc
    return time if time.tzinfo else time.replace(tzinfo=UTC)


Time = Annotated[datetime | None, typer.Option(parser=parse_time, metavar="TIME", show_default=False)]


def parse_keys(
    texts: Sequence[str], fields: Mapping[str, KeyField], entities: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Entity rows of the given `-k` options.

    Args:
        texts: Each ``K1,K2`` (one row per key, if there is a single key field) or ``f1=v1,f2=v2`` (one row).
        fields: The key fields that are needed, by the name to use in the row.
        entities: Names of their entities, which people take for the names of their keys.

    Returns:
        One mapping per row, in the order given, with values in python form.

    Raises:
        typer.BadParameter: A key lacks a field or has one too many, a value does not fit its type, or a key of one
            field begins with what looks like a wrong name of that field.
    """
    names = "|".join(map(re.escape, fields))
    rows: list[dict[str, Any]] = []
    for text in texts:
        if re.match(rf"(?:{names})=", text):
            # A value may hold commas: only one that is followed by `field=` ends it.
            parts = [part.partition("=") for part in re.split(rf",(?=(?:{names})=)", text)]
            given = {name: value for name, _, value in parts}
            if len(given) != len(parts):
                raise typer.BadParameter(f"{text!r} names a key field twice", param_hint="-k")
            rows.append(_row(given, fields, text))
        elif len(fields) == 1:
            _refuse_wrong_name(text, fields, entities)
            rows.extend(_row(dict.fromkeys(fields, part), fields, part) for part in text.split(","))
        else:
            raise typer.BadParameter(
                f"{text!r} must name every key field: {','.join(f'{name}=…' for name in fields)}", param_hint="-k"
            )
    return rows


def _refuse_wrong_name(text: str, fields: Mapping[str, KeyField], entities: Iterable[str]) -> None:
    """Refuse ``rider=ann`` where the key field is ``rider_id``; other keys may hold an equals sign."""
    (field,) = fields
    for part in text.split(","):
        found = re.match(r"([A-Za-z]\w*)=", part, re.ASCII)
        if found and (found[1] in entities or get_close_matches(found[1].lower(), [field.lower()], cutoff=0.8)):
            raise typer.BadParameter(
                f"{found[1]} is not a key field (it is: {field}); for a key that holds '=' write {field}={found[1]}=…",
                param_hint="-k",
            )


def _row(given: Mapping[str, str], fields: Mapping[str, KeyField], text: str) -> dict[str, Any]:
    missing = [name for name in fields if name not in given]
    if missing:
        raise typer.BadParameter(f"{text!r} lacks the key field {', '.join(missing)}", param_hint="-k")
    return {name: python_from_text(fields[name].type, given[name], where=name, option="-k") for name in fields}


def python_from_text(kind: ValueType, text: str, *, where: str, option: str) -> Any:
    """The python form of a value that was typed as text.

    Args:
        kind: Its type.
        text: What was typed.
        where: Field to name in an error.
        option: Option to name in an error.

    Raises:
        typer.BadParameter: The text is no value of that type; names the field, not the value.
    """
    try:
        return _FROM_TEXT[kind.kind.value](kind, text)
    except (ValueError, InvalidOperation, binascii.Error) as exc:
        raise typer.BadParameter(f"{where} is not {_EXPECTED[kind.kind.value]}", param_hint=option) from exc


def _boolean(_: ValueType, text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0"}:
        raise ValueError(text)
    return text.lower() in {"true", "1"}


def _time(_: ValueType, text: str) -> datetime:
    try:
        return parse_time(text)
    except typer.BadParameter as exc:
        raise ValueError(text) from exc


def _array(kind: ValueType, text: str) -> list[Any]:
    items = orjson.loads(text)
    if not isinstance(items, list) or kind.item is None:
        raise ValueError(text)
    item = kind.item
    same = {"boolean", "int", "long", "float", "double", "string", "enum"}
    return items if item.kind.value in same else [_FROM_TEXT[item.kind.value](item, str(each)) for each in items]


_FROM_TEXT: dict[str, Any] = {
    "boolean": _boolean,
    "int": lambda _, text: int(text),
    "long": lambda _, text: int(text),
    "float": lambda _, text: float(text),
    "double": lambda _, text: float(text),
    "string": lambda _, text: text,
    "enum": lambda _, text: text,
    "bytes": lambda _, text: base64.b64decode(text, validate=True),
    "date": lambda _, text: date.fromisoformat(text),
    "timestamp-millis": _time,
    "timestamp-micros": _time,
    "decimal": lambda _, text: Decimal(text),
    "array": _array,
}
_EXPECTED = {
    "boolean": "true or false",
    "int": "an integer",
    "long": "an integer",
    "float": "a number",
    "double": "a number",
    "string": "text",
    "enum": "text",
    "bytes": "base64 text",
    "date": "a date as YYYY-MM-DD",
    "timestamp-millis": "a time such as 2013-07-01T12:00:00Z",
    "timestamp-micros": "a time such as 2013-07-01T12:00:00Z",
    "decimal": "a decimal number",
    "array": "a JSON array",
}
