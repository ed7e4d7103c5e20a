"""What the HTTP API is: as an OpenAPI document, and as a page of it that loads nothing from anywhere."""

from __future__ import annotations

import functools
import html
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import orjson

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-top: 1px solid #8884; padding-top: 1rem; } h2 code { font-size: 1rem; }
pre { background: #8882; padding: .8rem; overflow-x: auto; } td, th { padding: .2rem .8rem .2rem 0; text-align: left;
vertical-align: top; } @media (prefers-color-scheme: dark) { body { background: #16181c; color: #dcdfe4; } }
"""


@functools.cache
def api_document() -> dict[str, Any]:
    """The OpenAPI document, with this version's number."""
    document: dict[str, Any] = orjson.loads(files(__package__).joinpath("openapi.json").read_bytes())
    document["info"]["version"] = version("oomstream")
    return document


@functools.cache
def api_page() -> str:
    """The document as a page of HTML."""
    document = api_document()
    title, number, about = (html.escape(document["info"][name]) for name in ("title", "version", "description"))
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title} {number}</h1><p>{about}</p>",
        '<p>The same for programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _operation(f"{method.upper()} {path}", operation, document)
    parts.append("<h2>Schemas</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(f'<h3 id="{html.escape(name)}">{html.escape(name)}</h3>{_fields(schema)}')
    return "\n".join([*parts, "</body></html>"])


def _operation(title: str, operation: dict[str, Any], document: dict[str, Any]) -> list[str]:
    parts = [f"<h2><code>{html.escape(title)}</code> {html.escape(operation['summary'])}</h2>"]
    if "description" in operation:
        parts.append(f"<p>{html.escape(operation['description'])}</p>")
    for media in operation.get("requestBody", {}).get("content", {}).values():
        example = orjson.dumps(media["example"], option=orjson.OPT_INDENT_2).decode()
        parts.append(f"<p>Request: {_type(media['schema'])}</p><pre>{html.escape(example)}</pre>")
    parts.append("<table>")
    for status, response in operation["responses"].items():
        found = document["components"]["responses"][_name(response)] if "$ref" in response else response
        schemas = " ".join(_type(media["schema"]) for media in found.get("content", {}).values())
        word = "else" if status == "default" else status
        parts.append(f"<tr><th>{word}</th><td>{html.escape(found['description'])}</td><td>{schemas}</td></tr>")
    return [*parts, "</table>"]


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        f"<tr><th><code>{html.escape(name)}</code></th>"
        f"<td>{_type(field)}{'' if name in required else ', optional'}</td>"
        f"<td>{html.escape(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    ]
    return f"<table>{''.join(rows)}</table>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = html.escape(_name(schema))
        return f'<a href="#{name}">{name}</a>'
    kinds = schema.get("type", "any")
    text = html.escape(kinds if isinstance(kinds, str) else " or ".join(kinds))
    if "enum" in schema:
        text += f" ({html.escape(', '.join(schema['enum']))})"
    return f"{text} of {_type(schema['items'])}" if "items" in schema else text


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
