"""The tokens of one statement, as DuckDB's own scanner finds them, and texts put together from pieces of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import duckdb

from lakehouse.errors import SqlRefused, SyntaxFault

_WORD = re.compile(r"[^\W\d][\w$]*")
_QUOTED = re.compile(r'"((?:[^"]|"")+)"')
_COMMENT = re.compile(r"\s+|--[^\n]*(?:\n|$)|/\*.*?\*/", re.S)
# DuckDB's parser takes these for spaces, its scanner does not.
_SPACES = re.compile(r"[\u00a0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]")
_PAIRS = {"(": ")", "[": "]", "{": "}", "case": "end"}
_CLOSE = frozenset(_PAIRS.values())


@dataclass(frozen=True, slots=True)
class Token:
    """One token.

    `word` is its lower-cased text where it is a bare word, else its first character.
    """

    start: int
    end: int
    word: str
    depth: int
    """How many brackets and CASE are open around it; a bracket counts as outside of itself."""


class Text:
    """One statement as tokens, with a cursor on the first that has not been taken.

    Raises:
        SqlRefused: more than one statement, or characters whose meaning is not certain.
        SyntaxFault: brackets that do not match.
    """

    def __init__(self, sql: str, deepest: int) -> None:
        self.sql = sql
        self.at = 0
        self.tokens = _scan(sql, deepest)
        while self.tokens and self.tokens[-1].word == ";":
            self.tokens.pop()
        for token in self.tokens:
            if token.word == ";":
                raise self.refuse("only one statement at a time is let through", token)

    def refuse(self, what: str, token: Token | None = None, hint: str | None = None) -> SqlRefused:
        """An error that says where: at the token, else at the cursor."""
        token = token or self.peek()
        return refused(what, self.sql, token.start if token else len(self.sql), hint)

    def peek(self, ahead: int = 0) -> Token | None:
        """A token that has not been taken; None behind the last."""
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else None

    def next_is(self, *words: str) -> bool:
        """Whether these words come next."""
        there = [token.word for token in self.tokens[self.at : self.at + len(words)]]
        return there == list(words)

    def accept(self, *words: str) -> bool:
        """Take these words if they come next."""
        if self.next_is(*words):
            self.at += len(words)
            return True
        return False

    def expect(self, *words: str) -> None:
        """Take these words.

        Raises:
            SqlRefused: something else comes next.
        """
        if not self.accept(*words):
            raise self.unexpected(f"{' '.join(words).upper()} was expected")

    def unexpected(self, wanted: str = "") -> SqlRefused:
        """The error for what comes next."""
        token = self.peek()
        shown = self.sql[token.start : token.end].strip()[:40] if token else "the end"
        return self.refuse(f"'{shown}' is not let through here{': ' if wanted else ''}{wanted}", token)

    def done(self) -> None:
        """Raise SqlRefused if anything is left."""
        if self.peek() is not None:
            raise self.unexpected()

    def identifier(self) -> str:
        """Take one name, without its quotes."""
        token = self.peek()
        if token is None:
            raise self.unexpected("a name was expected")
        match = (_QUOTED if token.word == '"' else _WORD).match(self.sql, token.start)
        if match is None or _after(self.sql, match.end()) < token.end:
            raise self.unexpected("a name was expected")
        self.at += 1
        return match[1].replace('""', '"') if token.word == '"' else match[0]

    def dotted(self) -> tuple[str, ...]:
        """Take a name of up to four parts, joined by dots."""
        parts = [self.identifier()]
        while len(parts) < 4 and self.accept("."):
            parts.append(self.identifier())
        return tuple(parts)

    def listed(self) -> list[str]:
        """Take names in parentheses."""
        self.expect("(")
        found = [self.identifier()]
        while self.accept(","):
            found.append(self.identifier())
        self.expect(")")
        return found

    def piece(self, until: Callable[[int], bool] | Iterable[str] = ()) -> Piece:
        """Take all tokens up to one that ends the piece and stands at the depth where the piece begins.

        Args:
            until: the words that end it, or whether the token of that index does.

        Raises:
            SqlRefused: nothing stands before it.
        """
        ends = until if callable(until) else self._one_of(frozenset(until))
        begin, first = self.at, self.peek()
        while first and (token := self.peek()) is not None and token.depth >= first.depth:
            if token.depth == first.depth and ends(self.at):
                break
            self.at += 1
        if self.at == begin or first is None:
            raise self.unexpected()
        return Piece(self.sql[first.start : self.tokens[self.at - 1].end], first.start)

    def _one_of(self, words: frozenset[str]) -> Callable[[int], bool]:
        return lambda index: self.tokens[index].word in words


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a statement as it was written, and how many characters stand before it; -1 where it is none of it."""

    text: str
    start: int


class Composed:
    """A text of words of ours and pieces of somebody's."""

    def __init__(self) -> None:
        self.parts: list[Piece] = []

    def add(self, *parts: str | Piece) -> Composed:
        """Put something behind; a piece gets a line end, which ends a comment at its end."""
        for part in parts:
            self.parts.append(part if isinstance(part, Piece) else Piece(part, -1))
            if self.parts[-1].start >= 0:
                self.parts.append(Piece("\n", -1))
        return self

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)

    def origin(self, at: int) -> int | None:
        """Where in the statement a character of this text was written; None where it is one of ours."""
        for part in self.parts:
            if at < len(part.text):
                return part.start + at if part.start >= 0 else None
            at -= len(part.text)
        return None


def refused(what: str, sql: str, at: int | None, hint: str | None = None) -> SqlRefused:
    """The error with line and column, `at` in characters."""
    return SqlRefused(what if at is None else f"{what} ({where(sql, at)})", hint=hint)


def where(sql: str, at: int) -> str:
    """Line and column of a character, from 1."""
    return f"line {sql.count(chr(10), 0, at) + 1}, column {at - sql.rfind(chr(10), 0, at)}"


def characters(sql: str, at: int) -> int:
    """How many characters the first `at` bytes of the text are."""
    return at if sql.isascii() else len(sql.encode()[:at].decode(errors="ignore"))


def _after(sql: str, at: int) -> int:
    """Behind the comments and spaces at this place."""
    while match := _COMMENT.match(sql, at):
        at = match.end()
    return at


def _scan(sql: str, deepest: int) -> list[Token]:
    starts, raw, ascii_only = [], sql.encode(), sql.isascii()
    at = last = 0
    for offset, kind in duckdb.tokenize(sql):
        at += offset - last if ascii_only else len(raw[last:offset].decode())
        last = offset
        starts.append((at, kind))
    found: list[Token] = []
    closing: list[str] = []
    for index, (start, kind) in enumerate(starts):
        end = starts[index + 1][0] if index + 1 < len(starts) else len(sql)
        text = kind == duckdb.token_type.string_const
        if (space := _SPACES.search(sql, start, end)) and (not text or sql[start] == "$"):
            raise refused("a space that is not plain stands outside of a text", sql, space.start())
        match = None if text else _WORD.match(sql, start)
        word = "'" if text else match[0].lower() if match else sql[start]
        # `… AS end` and `t.end` are names.
        bracket = word if not (match and found and found[-1].word in (".", "as")) else ""
        if bracket in _CLOSE and (not closing or closing.pop() != bracket):
            raise SyntaxFault(f"'{word}' closes what was not opened ({where(sql, start)})")
        found.append(Token(start, end, word, len(closing)))
        if bracket in _PAIRS:
            closing.append(_PAIRS[bracket])
            if len(closing) > deepest:
                raise refused(f"more than {deepest} brackets stand within each other", sql, start)
    if closing:
        raise SyntaxFault(f"'{closing[-1]}' is missing at the end")
    return found
