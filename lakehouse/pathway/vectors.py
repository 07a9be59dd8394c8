"""The vectors of the texts: two files beside the index, made from it, caught up by any process, rebuilt when lost.

Row n of both belongs to text n. `.vectors` holds a mark of all texts so far, a checksum, and the vector as whole
numbers of eight bits; `.codes` holds only the signs of its numbers. A search looks at the signs of all texts and reckons
the cosine of the nearest eight thousand. It reckons in whole numbers, so that every machine gives one answer.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.errors import ConfigError, LakeUnusable
from lakehouse.pathway import place
from lakehouse.pathway.model import prose

if TYPE_CHECKING:
    from lakehouse.pathway.embedding import Embedder
    from lakehouse.pathway.index import Index
    from lakehouse.pathway.words import Mask

TIER = 8192
_BATCH = 2000
_STEP = 8192
_PART = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Damaged(Exception):
    """A row is not what was written."""


class Vectors:
    """The vectors of one index by one embedder.

    Args:
        index: whose texts.
        embedder: what makes vectors of them.

    Raises:
        ConfigError: the embedder's name or dimension cannot be used.
    """

    def __init__(self, index: Index, embedder: Embedder) -> None:
        import numpy as np

        if not _NAME.fullmatch(embedder.name) or not 0 < embedder.dimension <= 4096:
            raise ConfigError(
                f"the embedder '{embedder.name}' of {embedder.dimension} dimensions cannot be used",
                hint="a name of letters, digits and dashes; 1 to 4096 dimensions",
            )
        self._np = np
        self._index = index
        self._embedder = embedder
        self._number = np.float32 if embedder.dimension <= 1024 else np.float64
        self._width = -(-embedder.dimension // 64)
        numbers: list[Any] = [("mark", "<u4"), ("check", "<u4"), ("square", "<u4")]
        self._row = np.dtype([*numbers, ("vector", "i1", (embedder.dimension,))])
        self._weights = (np.arange(embedder.dimension) * 53 % 127 + 1).astype(self._number)
        self._open: tuple[tuple[int, ...], Any, Any] | None = None
        self._folder: Path | None = None

    def nearest(self, query: str, texts: int, mask: Mask | None) -> Iterator[tuple[Any, Any]]:
        """The texts by their likeness to a query, in tiers: each best first, the next of less like signs.

        Args:
            query: any text.
            texts: how many to look at, from the first.
            mask: only these; None: all.

        Yields:
            Arrays of texts and of their cosines above 0.

        Raises:
            Damaged: `forget` and search again.
        """
        np = self._np
        codes, rows = self._mapped(texts)
        asked = self._embed([query])
        if not asked.any():
            return
        among = None if mask is None else mask.nonzero()[0]
        distances = self._distances(codes[:texts], among, self._signs(asked)[0])
        size = TIER
        order: Any = None
        done = 0
        while done < len(distances):
            if order is None:  # finding the last that is wanted is much faster than sorting all of them
                last = min(size, len(distances)) - 1
                near = np.flatnonzero(distances <= np.partition(distances, last)[last])
                some = near[np.argsort(distances[near], kind="stable")][:size]
            else:
                some = order[done : done + size]
            some = np.sort(some)  # near each other in the file
            yield self._cosines(codes, rows, some if among is None else among[some], asked[0])
            if order is None:
                order = np.argsort(distances, kind="stable")
            done, size = done + size, size * 8

    def forget(self) -> None:
        """Delete the files; the next search makes them again."""
        self._open = None
        if not place.writable(self._paths()[1]):
            self._folder = self._index.scratch()
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _cosines(self, codes: Any, rows: Any, texts: Any, asked: Any) -> tuple[Any, Any]:
        np = self._np
        # A few at a time: memory of many megabytes is got from the system, and given back, at every search.
        parts = [self._reckoned(codes, rows, texts[at : at + _PART], asked) for at in range(0, len(texts), _PART)]
        dots, squares = (np.concatenate(column) for column in zip(*parts, strict=True))
        other = asked.astype(self._number)
        cosines = dots / np.sqrt(np.maximum(squares, 1).astype(np.float64) * float(other @ other))
        order = np.argsort(-cosines, kind="stable")  # the texts ascend: of equal ones the older comes first
        order = order[dots[order] > 0]
        return texts[order], cosines[order]

    def _reckoned(self, codes: Any, rows: Any, texts: Any, asked: Any) -> tuple[Any, Any]:
        """The products with a query, and the squares of the lengths, of rows that are as they were written."""
        np = self._np
        found = rows.view(f"V{rows.itemsize}").take(texts).view(rows.dtype)  # as wholes: field by field takes longer
        vectors = found["vector"]
        # Sums of products of such small whole numbers are exact, in whatever order they are added.
        # Not by `@`: the threads of BLAS wait for each other, a hundred times as long when the processors are busy.
        numbers = vectors.astype(self._number)
        dots = np.einsum("ij,j->i", numbers, asked.astype(self._number))
        sums = np.einsum("ij,j->i", numbers, self._weights)
        if not np.array_equal(found["check"], self._checks(found["mark"], found["square"], sums)):
            raise Damaged
        if not np.array_equal(codes.take(texts, axis=0), self._signs(vectors)):
            raise Damaged
        return dots, found["square"]

    def _checks(self, marks: Any, squares: Any, sums: Any) -> Any:
        """A checksum of each row."""
        np = self._np
        mixed = marks.astype(np.int64) + squares.astype(np.int64) * 31 + sums.astype(np.int64) * 1009
        return (mixed & 0xFFFFFFFF).astype(np.uint32)

    def _distances(self, codes: Any, among: Any, asked: Any) -> Any:
        """In how many signs each text differs, or each of some."""
        np = self._np
        count, width = len(codes) if among is None else len(among), self._width
        result = np.empty(count, np.uint16)
        repeated = np.tile(asked, min(_STEP, count))  # rows of four are slow to loop over
        differ, counts = np.empty_like(repeated), np.empty(len(repeated), np.uint8)
        for start in range(0, count, _STEP):  # what fits the processor's cache
            end = min(start + _STEP, count)
            some = (codes[start:end] if among is None else codes.take(among[start:end], axis=0)).reshape(-1)
            np.bitwise_xor(some, repeated[: len(some)], out=differ[: len(some)])
            np.bitwise_count(differ[: len(some)], out=counts[: len(some)])
            if width == 4:  # the four counts of a row, each at most 64, are added as the bytes of one number
                pairs = counts[: len(some)].view("<u4")
                pairs = (pairs & 0x00FF00FF) + ((pairs >> 8) & 0x00FF00FF)
                part = (pairs + (pairs >> 16)) & 0x1FF
            else:
                part = counts[: len(some)].reshape(-1, width).sum(axis=1, dtype=np.uint16)
            result[start:end] = part
        return result

    def _embed(self, texts: list[str]) -> Any:
        """Vectors as whole numbers from -127 to 127."""
        np = self._np
        made = np.asarray(self._embedder.embed(texts), np.float64)
        if made.shape != (len(texts), self._embedder.dimension):
            raise ConfigError(
                f"the embedder '{self._embedder.name}' gave {made.shape} for {len(texts)} texts",
                hint=f"it says that it has {self._embedder.dimension} dimensions",
            )
        made = np.nan_to_num(made, posinf=0.0, neginf=0.0)
        largest = np.abs(made).max(axis=1, keepdims=True)
        return np.rint(made * (127 / np.where(largest > 0, largest, 1))).astype(np.int8)

    def _signs(self, vectors: Any) -> Any:
        np = self._np
        bits = np.packbits(vectors > 0, axis=1)
        padded = np.zeros((len(vectors), self._width * 8), np.uint8)
        padded[:, : bits.shape[1]] = bits
        return padded.view("<u8")

    def _paths(self) -> tuple[Path, Path]:
        beside = self._index.beside
        folder = self._folder if self._folder is not None and self._folder.exists() else beside.parent
        stem = f"{beside.stem}.{self._embedder.name}-{self._embedder.dimension}"
        return folder / f"{stem}.codes", folder / f"{stem}.vectors"

    def _mapped(self, texts: int) -> tuple[Any, Any]:
        """Both files with as many rows as wanted, caught up if they have fewer."""
        if texts == 0:
            return self._np.empty((0, self._width), "<u8"), self._np.empty(0, self._row)
        if not self._usable(texts):
            if not place.writable(self._paths()[1]):
                self._move()
            self._catch_up(texts)
            if not self._usable(texts):
                raise LakeUnusable(f"{self._paths()[1]} cannot be used", hint="delete it: it is rebuilt")
        assert self._open is not None
        return self._open[1], self._open[2]

    def _usable(self, texts: int) -> bool:
        """Map the files as they are; whether they have these texts and are of this journal."""
        np = self._np
        try:
            facts = [path.stat() for path in self._paths()]
        except FileNotFoundError:
            return False
        count = min(facts[0].st_size // (8 * self._width), facts[1].st_size // self._row.itemsize)
        if count < texts:
            return False
        files = tuple(fact.st_ino for fact in facts)
        if self._open is None or self._open[0] != files or len(self._open[2]) < texts:
            codes = np.frombuffer(_pages(self._paths()[0]), "<u8", count * self._width).reshape(count, self._width)
            rows = np.frombuffer(_pages(self._paths()[1]), self._row, count)
            self._open = files, codes, rows
        return self._marked(self._open[2], texts)

    def _marked(self, rows: Any, count: int) -> bool:
        """Whether row `count` was made when all texts up to it were what they are now."""
        known = self._index.ask("SELECT mark FROM version WHERE id = ?", [count - 1])
        return bool(known) and int(rows["mark"][count - 1]) == known[0][0]

    def _move(self) -> None:
        """Go on with copies in the temporary folder."""
        found = self._paths()
        self._folder = self._index.scratch()
        for old, new in zip(found, self._paths(), strict=True):
            if old.exists():
                shutil.copyfile(old, new)

    def _catch_up(self, texts: int) -> None:
        paths = self._paths()
        lock = os.open(paths[1].with_name(paths[1].name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            sizes = (8 * self._width, self._row.itemsize)
            count = min(
                path.stat().st_size // size if path.exists() else 0 for path, size in zip(paths, sizes, strict=True)
            )
            if count:
                # A process that sees fewer texts than there are rows has seen an older state of the journal.
                rows = self._np.memmap(paths[1], self._row, "r", shape=(count,))
                if not self._marked(rows, min(count, texts)):
                    count = 0
            if count == 0:
                self.forget()  # never cut: others may have it mapped
            for path, size in zip(paths, sizes, strict=True):
                with path.open("ab") as file:
                    file.truncate(count * size)  # a row that was torn
            for first in range(count, texts, _BATCH):
                self._append(paths, first, min(first + _BATCH, texts))
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a process that was forked meanwhile has it open too
            os.close(lock)

    def _append(self, paths: tuple[Path, Path], first: int, end: int) -> None:
        np = self._np
        found = self._index.ask(
            "SELECT v.mark, v.content, t.tags FROM version v JOIN trace t ON t.id = v.trace"
            " WHERE v.id >= ? AND v.id < ? ORDER BY v.id",
            [first, end],
        )
        vectors = self._embed([" ".join((prose(json.loads(row[1])), *json.loads(row[2]))) for row in found])
        rows = np.empty(len(found), self._row)
        rows["mark"] = [row[0] for row in found]
        rows["vector"] = vectors
        wide = vectors.astype(np.int64)
        rows["square"] = (wide * wide).sum(axis=1)
        rows["check"] = self._checks(rows["mark"], rows["square"], wide @ self._weights.astype(np.int64))
        for path, data in zip(paths, (self._signs(vectors), rows), strict=True):
            with path.open("ab") as file:
                file.write(data.tobytes())
                file.flush()
                os.fdatasync(file.fileno())


def _pages(path: Path) -> mmap.mmap:
    """A file as memory, with all its pages at hand: the first searches would stop at thousands of them, one by one."""
    with path.open("rb") as file:
        if sys.platform == "linux":
            return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
