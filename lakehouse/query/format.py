"""SQL laid out for reading: `%%sql --format` and `lakehouse fmt`.

sqlfmt lays out one statement at a time; it keeps every comment, and leaves what it does not know (most DDL) as it
stands. Of a statement that has a query in it, or sets columns, that part is laid out by itself. What it gives is
compared with what it got, by DuckDB's own parser and word by word: if anything but the layout differs the statement is
refused. Keywords become lower case, except those before a part that is laid out by itself; names keep theirs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import zip_longest
from typing import Any

import duckdb
import msgspec

from lakehouse.catalog.names import literal
from lakehouse.errors import FormatRefused
from lakehouse.query.statements import Parser

LINE_LENGTH = 100

_DIALECT = "clickhouse"  # the one of sqlfmt's that keeps the case of names; it knows the same SQL as its other one
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<line>--[^\n]*)
    |(?P<block>/\*)
    |(?P<escaped>[eE]'(?:[^'\\]|\\.|'')*')
    |(?P<string>[xX]?'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    |(?P<position>\#\d+)
    |(?P<operator>->>|->|=>|:=|::|<=>|<=|>=|<>|!=|==|\|\||\*\*|//|\^@|@>|<@|!?~~?~?\*?|<<|>>|&&|@)
    |(?P<word>\w[\w$]*)
    |(?P<other>.)""",
    re.X | re.S,
)
_HINT = "the text was left as it is; -- fmt: off and -- fmt: on keep a part out of it"
_PASSES = 4
_END = (";",)
_QUERY = ("select", "with", "from", "values")
_BODIES = {"insert": _QUERY, "create": _QUERY, "update": ("set",)}
"""Where the part begins that is laid out by itself; in a CREATE behind AS."""
_UNKNOWN = (
    "**",
    "//",
    "@",
    "^@",
    "~~~",
)  # operators that sqlfmt does not know, or takes for the beginning of a comment
_BRACES = frozenset("{}%#")
_SAME_LINE = re.compile(r"[^\S\n]*(--[^\n]*|/\*(?:(?!\*/|/\*|\n).)*\*/)[^\S\n]*(?=\n|\Z)")


def formatted(sql: str, parser: Parser | None = None) -> str:
    """A script with each of its statements laid out; it ends in a newline.

    Raises:
        SyntaxFault: a statement is not SQL that DuckDB can parse.
        FormatRefused: a statement cannot be laid out without changing it; the message says which and why.
    """
    with ExitStack() as stack:
        (parser or stack.enter_context(closing(Parser()))).parse(sql)
        database = stack.enter_context(closing(duckdb.connect(config={"threads": 1})))
        pieces = _pieces(sql)
        parts = []
        for number, (text, ended, remark) in enumerate(pieces, 1):
            done = _laid_out(text, f"statement {number}" if len(pieces) > 1 else "the statement", database)
            end = (f"\n;{remark}" if _ends_in_comment(done) else f";{remark}") if ended else ""
            parts.append(done + end)
        whole = "\n\n".join(parts) + "\n"
        if Counter(_comments(sql)) != Counter(_comments(whole)):
            raise FormatRefused("a comment between two statements would be changed", hint=_HINT)
    return whole


def _pieces(sql: str) -> list[tuple[str, bool, str]]:
    """Each statement with the comments around it, whether a semicolon ends it, and the remark on that one's line."""
    texts, start = [], 0
    for token, at in _tokens(sql):
        if token in _END:
            texts.append(sql[start:at])
            start = at + 1
    found: list[tuple[str, bool, str]] = []
    rest = [*texts, sql[start:]]
    for number, piece in enumerate(rest):
        text = piece
        if found and not found[-1][2] and (match := _SAME_LINE.match(text)):
            found[-1] = (*found[-1][:2], f"  {match[1]}")
            text = text[match.end() :]
        ended = number < len(rest) - 1
        if _words(text) or not ended:
            if text.strip():
                found.append((text.strip(), ended, ""))
        elif text.strip():  # comments between two semicolons go with what follows
            rest[number + 1] = f"{text.strip()}\n{rest[number + 1]}"
    return found


def _laid_out(text: str, what: str, database: duckdb.DuckDBPyConnection) -> str:
    if not _words(text):
        return text  # comments alone
    fault: str | None = None
    for layout in (_in_parts, _once):
        try:
            done = _settled(text, what, layout)
        except FormatRefused:
            if layout is _once:
                raise
            continue
        fault = _difference(text, done, database)
        if fault and (kept := _own_case(text, done, database)) != done:
            done, fault = kept, _difference(text, kept, database)
        if not fault:
            return done
    raise FormatRefused(f"{what} would not stay the same: {fault}", hint=_HINT)


def _settled(text: str, what: str, layout: Callable[[str, str], str]) -> str:
    for _ in range(_PASSES):  # sqlfmt needs a second look where it has moved a comment
        before, text = text, layout(text, what)
        if text == before:
            break
    return text


def _in_parts(text: str, what: str) -> str:
    """The statement with its query, or the columns it sets, laid out below what stands before them."""
    at, lead = _body(text)
    if not at:
        return _once(text, what)
    head, body = _once(text[:at], what), _once(lead + text[at:], what)
    if lead:  # what is set looks like what is selected
        body = body[len(lead) :].removeprefix("\n")
    return f"{head}{' ' if lead and not body.startswith(' ') else chr(10)}{body}"


def _body(text: str) -> tuple[int, str]:
    """Where the query of a statement begins, or 0, and the word that makes one of what it sets."""
    first, depth, before = "", 0, ""
    for token, at in _tokens(text):
        if not _is_word(token):
            continue
        word = token.lower()
        depth += (word in "([{") - (word in ")]}")
        if not first:
            if word not in _BODIES:
                return 0, ""
            first = word
        elif not depth and word in _BODIES[first] and (first != "create" or before == "as"):
            return (at + len(token), "select ") if word == "set" else (at, "")
        before = word
    return 0, ""


def _once(text: str, what: str) -> str:
    from sqlfmt.api import Mode, format_string
    from sqlfmt.exception import SqlfmtError

    covered, covers = _covered(text)
    try:
        # Not its own check, which knows less of DuckDB than ours.
        done: str = format_string(covered, Mode(dialect_name=_DIALECT, line_length=LINE_LENGTH, fast=True))
    except (SqlfmtError, RecursionError) as error:
        reason = str(error).removeprefix("sqlfmt encountered an error: ").split("\n", 1)[0]
        raise FormatRefused(f"{what} cannot be laid out: {reason}", hint=_HINT) from None
    for cover, original in covers.items():
        done = done.replace(cover, original)
    return done.strip()


def _own_case(before: str, after: str, database: duckdb.DuckDBPyConnection) -> str:
    """The new layout with each word in its old case that may be a name: sqlfmt takes some for keywords."""
    reserved = _reserved(database)
    old = iter(_words(before))
    parts = []
    for token, _ in _tokens(after):
        if not _is_word(token):
            parts.append(f" {token} " if token.startswith("/*") else token)
            continue
        own = next(old, token)
        parts.append(own if own.lower() == token.lower() and own.lower() not in reserved else token)
    return "".join(parts)


def _covered(text: str) -> tuple[str, dict[str, str]]:
    """The text with stand-ins for what sqlfmt would misread, and what they stand for."""
    covers: dict[str, str] = {}
    parts: list[str] = []
    for token, _ in _tokens(text):
        if token[0] in "eE" and token[1:2] == "'":
            cover = f"'lakehouse_cover_{len(covers)}_'"
        elif token in _UNKNOWN or (token[0] == "#" and token[1:].isdigit()):
            cover = f" lakehouse_cover_{len(covers)}_ "
        elif token.startswith("/*") and token.count("/*") > 1:
            cover = f" /* lakehouse_cover_{len(covers)}_ */ "
        else:
            if token in _BRACES and parts and parts[-1] in _BRACES:
                parts.append(" ")  # two of them in a row are a template's
            parts.append(f" {token} " if token.startswith("/*") else token)
            continue
        covers[cover.strip()] = token
        parts.append(cover)
    return "".join(parts), covers


def _difference(before: str, after: str, database: duckdb.DuckDBPyConnection) -> str | None:
    """What is not the same but for the layout; None when all is."""
    old, new = _words(before), _words(after)
    for a, b in zip_longest(old, new, fillvalue="the end"):
        if a != b and a.lower() != b.lower():
            return f"{b!r} would stand where {a!r} is"
        if a != b and a[0] in "\"'$":
            return f"{a} would become {b}"
    if Counter(_comments(before)) != Counter(_comments(after)):
        return "a comment would be changed"
    if _kinds(before, database) != _kinds(after, database):
        return "DuckDB would read it differently"
    meaning = _meaning(before, database)
    if meaning is not None:
        return None if meaning == _meaning(after, database) else "DuckDB would read it differently"
    reserved = _reserved(database)
    changed = [a for a, b in zip(old, new, strict=True) if a != b and a.lower() not in reserved]
    return f"{changed[0]!r} may be a name, and would be written differently" if changed else None


def _kinds(text: str, database: duckdb.DuckDBPyConnection) -> list[tuple[str, set[str]]] | None:
    """Which statements DuckDB finds, and their parameters; None when it finds none that it knows."""
    try:
        return [(str(one.type), set(one.named_parameters)) for one in database.extract_statements(text)]
    except duckdb.Error:
        return None


def _meaning(text: str, database: duckdb.DuckDBPyConnection) -> Any:
    """What DuckDB's parser makes of a SELECT, without the places in the text; None for other statements."""
    row = database.execute(f"SELECT json_serialize_sql({literal(text)})").fetchone()
    document = msgspec.json.decode(row[0]) if row else {"error": True}
    return None if document["error"] else _placeless(document)


def _placeless(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _placeless(value) for key, value in node.items() if key != "query_location"}
    return [_placeless(value) for value in node] if isinstance(node, list) else node


def _reserved(database: duckdb.DuckDBPyConnection) -> set[str]:
    rows = database.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'")
    return {row[0] for row in rows.fetchall()}


def _words(text: str) -> list[str]:
    """Everything that is neither space nor comment."""
    return [token for token, _ in _tokens(text) if _is_word(token)]


def _is_word(token: str) -> bool:
    return not token.isspace() and token[:2] not in ("--", "/*")


def _comments(text: str) -> list[str]:
    """The comments without the spaces in them: layout may indent them."""
    return ["".join(token.split()) for token, _ in _tokens(text) if token[:2] in ("--", "/*")]


def _ends_in_comment(text: str) -> bool:
    *_, (last, _) = _tokens(text)
    return last.startswith("--")


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """The text in pieces, spaces and comments among them, each with where it begins."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None  # the last alternative takes any character
        end = _block_end(text, at) if match.lastgroup == "block" else match.end()
        yield text[at:end], at
        at = end


def _block_end(text: str, start: int) -> int:
    """Where a block comment ends, which may have others inside."""
    depth = 0
    for match in re.compile(r"/\*|\*/").finditer(text, start):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)
