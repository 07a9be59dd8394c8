"""The words of the traces: how a text becomes terms, and where each term is.

SQLite's FTS5 cuts texts into terms (Unicode, without accents, Porter stems). The places of the terms lie in blocks of
up to 65,536 texts, packed for numpy; what was written last lies in a tail, text by text, until it makes a block.
Texts are numbered in the order of the journal, so that what was there at a position is a prefix.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3

    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Mask = NDArray[np.bool_]

SCHEMA = """
CREATE TABLE block (first INTEGER PRIMARY KEY, texts INTEGER NOT NULL);
CREATE TABLE posting (
    block INTEGER NOT NULL, term INTEGER NOT NULL, texts INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (block, term)) WITHOUT ROWID;
CREATE TABLE tail (text INTEGER PRIMARY KEY, terms BLOB NOT NULL, labels BLOB NOT NULL)
"""
_TERMS = """
CREATE VIRTUAL TABLE temp.piece USING fts5(words, content='', tokenize='porter unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE temp.term USING fts5vocab(piece, 'instance')
"""
BLOCK = 65_536
SMALL = 4096
_REMEMBERED = 400_000
_LONG = 64
_LENGTHS = 256
_FEW = 64
# Okapi BM25 (Robertson et al., TREC-3, 1994) with the usual k1 and b.
_K1, _B = 1.2, 0.75


def packed(term: str) -> bytes:
    """What stands for a term in the index: 64 bits of its hash."""
    return blake2b(term.encode(), digest_size=8).digest()


def number(term: bytes) -> int:
    """The same as SQLite keeps it."""
    return int.from_bytes(term, "little", signed=True)


def packed_label(name: str, value: str) -> bytes:
    """What stands for a kind, tag or scope, which are no words."""
    return packed(f"\0{name}\0{value}")


class Terms:
    """Cuts texts into terms, with the FTS5 of one connection.

    Args:
        connection: where FTS5 may keep temporary tables.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str, bytes] = {}
        for statement in _TERMS.split(";\n"):
            connection.execute(statement)

    def of(self, texts: Sequence[str]) -> list[bytes]:
        """The terms of each text, packed one behind the other, repeated ones too, in any order."""
        cut = [text.split() for text in texts]
        all_of_them = set[str]().union(*cut)
        new = all_of_them.difference(self._known)
        if len(self._known) + len(new) > _REMEMBERED:
            self._known.clear()
            new = all_of_them
        if new:
            self._learn(list(new))
        known = self._known
        found = [b"".join([known[piece] for piece in pieces]) for pieces in cut]
        for piece in new:
            if len(piece) > _LONG:
                del known[piece]
        return found

    def named(self, query: str) -> dict[str, int]:
        """The different terms of a query and their numbers, sorted."""
        names = sorted({term for _, term in self._cut([query])})
        return {name: number(packed(name)) for name in names}

    def _learn(self, pieces: Sequence[str]) -> None:
        # A text is cut at white space by us, and each piece by FTS5, once: words repeat.
        found = [b""] * len(pieces)
        for at, term in self._cut(pieces):
            found[at] += packed(term)
        self._known.update(zip(pieces, found, strict=True))

    def _cut(self, pieces: Sequence[str]) -> list[tuple[int, str]]:
        connection = self._connection
        connection.executemany("INSERT INTO temp.piece (rowid, words) VALUES (?, ?)", enumerate(pieces))
        cut = [(row[0], row[1]) for row in connection.execute("SELECT doc, term FROM temp.term")]
        connection.execute("INSERT INTO temp.piece (piece) VALUES ('delete-all')")
        return cut


class Ranking:
    """Scores and masks over the first texts of an index, in one state of it.

    Args:
        connection: of the index.
        texts: how many, from the first.
        length: of those, in terms, all together.
    """

    def __init__(self, connection: sqlite3.Connection, texts: int, length: int) -> None:
        import numpy as np

        self._np = np
        self._connection = connection
        self.texts = texts
        self._mean = max(1.0, length / max(1, texts))
        blocks = connection.execute("SELECT first, texts FROM block WHERE first < ? ORDER BY first", [texts]).fetchall()
        self._sizes: dict[int, int] = {row[0]: row[1] for row in blocks}
        self._sealed = max((first + count for first, count in blocks), default=0)
        rows = connection.execute(
            "SELECT terms, labels FROM tail WHERE text >= ? AND text < ? ORDER BY text", [self._sealed, texts]
        ).fetchall()
        self._tail = _flat([row[0] for row in rows])
        self._tail_labels = _flat([row[1] for row in rows])

    def scores(self, terms: Iterable[int]) -> Scores:
        """BM25 of every text for some terms, reckoned among these texts and no others."""
        np = self._np
        total = np.zeros(self.texts, np.float32)
        buffer = np.empty(BLOCK, np.float32)
        found: list[Any] = []
        many = 0
        for term in terms:
            places = self._places(term, self._tail)
            count = sum(len(codes) if at is not None else int(np.count_nonzero(codes)) for _, at, codes in places)
            table = self._table(math.log1p((self.texts - count + 0.5) / (count + 0.5)))
            for first, at, codes in places:
                if at is None:
                    many = self.texts
                    row = buffer[: len(codes)]
                    np.take(table, codes, out=row, mode="clip")
                    total[first : first + len(codes)] += row
                else:
                    texts = at.astype(np.intp)
                    texts += first
                    total[texts] += table[codes]
                    found.append(texts)
                    many += len(at)
        if many * _FEW > self.texts:  # to look at all texts takes less than to sort those that were found
            return Scores(total)
        return Scores(total, np.unique(np.concatenate(found or [np.empty(0, np.intp)])))

    def mask(self, labels: Iterable[int]) -> Mask:
        """The texts that have one of some labels."""
        np = self._np
        result: Mask = np.zeros(self.texts, np.bool_)
        for label in labels:
            for first, at, codes in self._places(label, self._tail_labels):
                if at is None:
                    result[first : first + len(codes)] |= codes != 0
                else:
                    result[first:][at] = True
        return result

    def _places(self, term: int, tail: tuple[Any, Any]) -> list[tuple[int, Any, Any]]:
        """Where a term is: per block its first text, the places (None: all in a row) and the codes there."""
        np = self._np
        places: list[tuple[int, Any, Any]] = []
        for first, count, data in self._connection.execute(
            "SELECT b.first, p.texts, p.data FROM block b CROSS JOIN posting p ON p.block = b.first AND p.term = ?"
            " WHERE b.first < ?",
            [term, self.texts],
        ):
            inside = self.texts - first
            if _dense(count, self._sizes[first]):
                places.append((first, None, np.frombuffer(data, "<u2")[:inside]))
                continue
            pairs = np.frombuffer(data, "<u2").reshape(-1, 2)
            if inside < self._sizes[first]:
                pairs = pairs[: np.searchsorted(pairs[:, 0], inside)]
            places.append((first, pairs[:, 0], pairs[:, 1]))
        terms, owners = tail
        found = owners[terms == term]
        if len(found):
            at, often = np.unique(found, return_counts=True)
            lengths = np.bincount(owners, minlength=int(at[-1]) + 1)[at]
            places.append((self._sealed, at, _codes(often, lengths)))
        return places

    def _table(self, weight: float) -> Floats:
        """The score of every code: how often a term is in a text, and the length of the text."""
        table: Floats = (weight * self._saturated).astype(self._np.float32)
        return table

    @cached_property
    def _saturated(self) -> Any:
        """The scores of all codes but for the weight of their term."""
        np = self._np
        often = np.arange(256, dtype=np.float64)[:, None]
        lengths = _rounded_lengths()[None, :]
        return (often * (_K1 + 1) / (often + _K1 * (1 - _B + _B * lengths / self._mean))).reshape(-1)


class Scores:
    """A score for each text; 0: it is not found.

    Args:
        all_of_them: the scores.
        among: the texts that may have one, ascending; None: any.
    """

    def __init__(self, all_of_them: Floats, among: Any = None) -> None:
        self._all = all_of_them
        self._among = among

    def narrow(self, mask: Mask | None, threshold: float | None) -> Scores:
        """Only the texts of a mask, and what scores as much as a threshold; the other scores are lost."""
        import numpy as np

        scores, among = self._all, self._among
        if mask is not None:
            if among is None and np.count_nonzero(mask) * 8 < len(mask):
                among = mask.nonzero()[0]
            elif among is None:
                scores *= mask  # in place: memory of megabytes is got from the system each time
            else:
                among = among[mask[among]]
        if threshold is not None:
            if among is None:
                scores *= scores >= threshold
            else:
                among = among[scores[among] >= threshold]
        return Scores(scores, among)

    def of(self, text: int) -> float:
        """The score of one text."""
        return float(self._all[text])

    def best(self, count: int) -> Any:
        """An array of the texts with the highest scores, best first; of equal ones the older comes first."""
        import numpy as np

        scores, at = self._all, self._among
        if at is None:
            bound, width = np.float32(0), min(1024, len(scores) // (2 * count))
            if width > 16:  # at least so many texts score as high as the best of their row
                rows = scores[: len(scores) // width * width].reshape(-1, width).max(axis=1)
                bound = np.partition(rows, -count)[-count]
            at = np.flatnonzero(scores >= bound) if bound > 0 else np.flatnonzero(scores > 0)
        else:
            at = at[scores[at] > 0]
        some = scores[at]
        if len(at) > count:
            last = np.partition(some, -count)[-count]
            above = at[some > last]
            at = np.concatenate((above, at[some == last][: count - len(above)]))
            some = scores[at]
        return at[np.lexsort((at, -some))]


def add_to_tail(connection: sqlite3.Connection, first: int, terms: Sequence[bytes], labels: Sequence[bytes]) -> None:
    """Add texts behind the last one; `seal` makes a block of them when they are many."""
    rows = ((first + at, *both) for at, both in enumerate(zip(terms, labels, strict=True)))
    connection.executemany("INSERT INTO tail VALUES (?, ?, ?)", rows)


def seal(connection: sqlite3.Connection, *, small: bool) -> None:
    """Make blocks of the tail while it has enough texts for one, or for a small one; small ones are made one later."""
    at_least = SMALL if small else BLOCK
    while True:
        first, count = connection.execute("SELECT min(text), count(*) FROM tail").fetchone()
        if count < at_least:
            return
        rows = connection.execute("SELECT terms, labels FROM tail ORDER BY text LIMIT ?", [BLOCK]).fetchall()
        terms, owners = _flat([row[0] for row in rows])
        labels, marked = _flat([row[1] for row in rows])
        connection.execute("DELETE FROM tail WHERE text < ?", [first + len(rows)])
        _write_block(connection, first, len(rows), *_counted(terms, owners, labels, marked))
        _merge(connection)


def _merge(connection: sqlite3.Connection) -> None:
    """Make one block of the last small ones when together they are a whole one."""
    import numpy as np

    small = []
    for first, texts in connection.execute("SELECT first, texts FROM block ORDER BY first DESC"):
        if texts > BLOCK // 2:
            break
        small.append((first, texts))
    begin, total = min(small, default=(0, 0))[0], sum(texts for _, texts in small)
    if total < BLOCK - SMALL or total > BLOCK:
        return
    parts = []
    for first, texts in reversed(small):
        for term, count, data in connection.execute("SELECT term, texts, data FROM posting WHERE block = ?", [first]):
            codes = np.frombuffer(data, "<u2")
            if _dense(count, texts):
                at = np.flatnonzero(codes)
                codes = codes[at]
            else:
                at, codes = codes[::2], codes[1::2]
            parts.append((np.full(len(at), term, np.int64), at.astype(np.int64) + (first - begin), codes))
    connection.execute("DELETE FROM posting WHERE block >= ?", [begin])
    connection.execute("DELETE FROM block WHERE first >= ?", [begin])
    numbers, at, codes = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(numbers, kind="stable")
    _write_block(connection, begin, total, numbers[order], at[order], codes[order])


def _counted(terms: Any, owners: Any, labels: Any, marked: Any) -> tuple[Any, Any, Any]:
    """Every term of every text once, sorted by term and text, with its code."""
    import numpy as np

    lengths = np.bincount(owners, minlength=1)
    order = np.argsort(terms, kind="stable")
    terms, owners = terms[order], owners[order]
    starts = np.flatnonzero(np.r_[len(terms) > 0, (terms[1:] != terms[:-1]) | (owners[1:] != owners[:-1])])
    often = np.diff(np.r_[starts, len(terms)])
    terms, owners = terms[starts], owners[starts]
    codes = _codes(often, lengths[owners])
    numbers = np.concatenate((terms, labels))
    order = np.argsort(numbers, kind="stable")
    at = np.concatenate((owners, marked))[order]
    return numbers[order], at, np.concatenate((codes, np.full(len(labels), 256, "<u2")))[order]


def _write_block(connection: sqlite3.Connection, first: int, texts: int, numbers: Any, at: Any, codes: Any) -> None:
    """Keep terms sorted by number and text; one that most texts have is kept as a row of codes, 0 where it is not."""
    import numpy as np

    pairs = np.empty((len(at), 2), "<u2")
    pairs[:, 0], pairs[:, 1] = at, codes
    starts = np.flatnonzero(np.r_[len(numbers) > 0, numbers[1:] != numbers[:-1]])
    ends = np.r_[starts[1:], len(numbers)]
    packed = pairs.tobytes()

    def rows() -> Iterable[tuple[int, int, int, bytes]]:
        for term, start, end in zip(numbers[starts].tolist(), starts.tolist(), ends.tolist(), strict=True):
            data = packed[4 * start : 4 * end]
            if _dense(end - start, texts):
                row = np.zeros(texts, "<u2")
                row[pairs[start:end, 0]] = pairs[start:end, 1]
                data = row.tobytes()
            yield first, term, end - start, data

    connection.execute("INSERT INTO block VALUES (?, ?)", [first, texts])
    connection.executemany("INSERT INTO posting VALUES (?, ?, ?, ?)", rows())


def _dense(count: int, texts: int) -> bool:
    return count * 4 > texts


def _flat(rows: Sequence[bytes]) -> tuple[Any, Any]:
    """The numbers of many texts in one array, and the text that each is of, counted from the first."""
    import numpy as np

    sizes = np.fromiter((len(row) // 8 for row in rows), np.int64, len(rows))
    return np.frombuffer(b"".join(rows), "<i8"), np.repeat(np.arange(len(rows)), sizes)


def _codes(often: Any, lengths: Any) -> Any:
    """How often a term is in a text, up to 255, and the rounded length of the text, in two bytes."""
    import numpy as np

    return (np.minimum(often, 255) * 256 + np.searchsorted(_rounded_lengths(), lengths, side="right") - 1).astype("<u2")


def _rounded_lengths() -> Any:
    """The 256 lengths that are told apart: every one to 128, then sixteen between a length and its double."""
    import numpy as np

    steps = np.arange(_LENGTHS)
    return np.where(steps <= 128, steps, np.floor(128 * 2.0 ** ((steps - 128) / 16))).astype(np.float64)
