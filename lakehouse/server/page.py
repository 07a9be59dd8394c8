"""The description of the API as a page: plain HTML with one style sheet inside, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; --mark: #06c; }
@media (prefers-color-scheme: dark) { :root { --mark: #6af; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
a { color: var(--mark); text-decoration: none; } a:hover { text-decoration: underline; }
nav { columns: 14rem; margin: 1.5rem 0; } nav a { display: block; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; } summary p { display: inline; color: var(--dim); margin-left: .6rem; }
code, b.method { font: 13px/1.5 ui-monospace, monospace; }
b.method { display: inline-block; min-width: 4.2rem; font-weight: 700; }
i.label { font-style: normal; font-size: 12px; border: 1px solid var(--line); border-radius: 4px; padding: 0 .4rem; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; border-top: 1px solid var(--line); }
th { color: var(--dim); font-weight: 400; border: 0; } h3 { margin: 1rem 0 0; font-size: 1rem; }
.dim { color: var(--dim); }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; sandbox"
"""The Content-Security-Policy of the page."""


def page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append(_operation(document, method, path, operation))
    title = f"{document['info']['title']} {document['info']['version']}"
    base = document["servers"][0]["url"]
    parts = [
        (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}: the API</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
            f'<h1>{escape(title)}</h1><p class="dim">Every route begins with <code>{escape(base)}</code> and asks for a token'
            " (<code>Authorization: Bearer …</code>) or, in a browser, for a login to Jupyter."
            ' The same as <a href="openapi.json">openapi.json</a>.</p><nav>'
        ),
        *(f'<a href="#{escape(name)}">{escape(name)} ({len(some)})</a>' for name, some in groups.items()),
        '<a href="#types">types</a></nav>',
    ]
    for name, some in groups.items():
        parts += [f'<h2 id="{escape(name)}">{escape(name)}</h2>', *some]
    parts.append('<h2 id="types">types</h2>')
    parts += [_type(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "".join([*parts, "</body></html>"])


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [
        (
            f'<details id="{operation["operationId"]}"><summary><b class="method">{method.upper()}</b>'
            f'<code>{escape(path)}</code> <i class="label">{escape(operation["x-label"])}</i>'
            f"<p>{_text(operation['summary'])}</p></summary>"
        )
    ]
    rows = [
        (
            f"<code>{escape(one['name'])}</code>",
            escape(one["in"]) + (", required" if one.get("required") else ""),
            _shape(one["schema"]) + (f"<br>{_text(one['description'])}" if "description" in one else ""),
        )
        for one in operation["parameters"]
    ]
    parts += _table("Parameters", ("name", "where", "type"), rows)
    bodies = operation.get("requestBody", {}).get("content", {})
    kinds = [(f"<code>{escape(media)}</code>", _shape(one.get("schema"))) for media, one in bodies.items()]
    parts += _table("Body", ("media type", "type"), kinds)
    told = []
    for status, answer in operation["responses"].items():
        found = _resolved(document, answer)
        refused = "application/problem+json" in found.get("content", {})
        content = "<br>".join(
            f"<code>{escape(media)}</code> {_shape(one.get('schema'))}"
            for media, one in ({} if refused else found.get("content", {})).items()
        )
        told.append((status, _text(found["description"]) if refused else content or _text(found["description"])))
    parts += _table("Answers", ("status", "what"), told)
    return "".join([*parts, "</details>"])


def _type(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (
            f"<code>{escape(field)}</code>",
            "required" if field in required else "",
            _shape(one) + (f"<br>{_text(one['description'])}" if "description" in one else ""),
        )
        for field, one in schema.get("properties", {}).items()
    ]
    about = f"<p>{_text(schema.get('description', '').partition(chr(10))[0])}</p>"
    head = f'<details id="type-{escape(name)}"><summary><code>{escape(name)}</code>{about}</summary>'
    return "".join([head, *_table("", ("field", "", "type"), rows), "</details>"])


def _table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Rows of HTML under a header; nothing when there are none."""
    if not rows:
        return
    if title:
        yield f"<h3>{title}</h3>"
    yield f"<table><tr>{''.join(f'<th>{name}</th>' for name in header)}</tr>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
    yield "</table>"


def _resolved(document: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """An answer itself, where only its name is given."""
    name = answer.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["responses"][name] if name else answer
    return found


def _shape(schema: dict[str, Any] | None) -> str:
    """A schema in a few words, with links to the types that have a name."""
    if not schema:
        return '<span class="dim">any</span>'
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#type-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_shape(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [None])[0]
        return f"list of {_shape(inner if isinstance(inner, dict) else None)}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_shape(schema['additionalProperties'])} by name"
    limits = [f"{sign} {schema[name]}" for name, sign in _LIMITS.items() if name in schema]
    known = f", default <code>{escape(repr(schema['default']))}</code>" if schema.get("default") is not None else ""
    return escape(" ".join([str(schema.get("format", kind)), *limits])) + known


_LIMITS = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<", "pattern": "like"}


def _text(text: str) -> str:
    """Text with code between backticks, as HTML."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)).replace("\n", "<br>")
