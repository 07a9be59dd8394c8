"""DuckDB's exceptions in the product's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from lakehouse import errors
from lakehouse.catalog import keeping

_PREFIX = re.compile(r"^(?:(?:TransactionContext |[A-Z][A-Za-z-]+(?: [A-Za-z]+)* )?Error: )+")
_FULL = re.compile(r"no space left on device|database or disk is full|disk quota exceeded|file too large", re.I)
_FAILING = re.compile(r"disk I/O error", re.I)  # what SQLite says when it cannot make room for its log, too
_STREAMED = re.compile(r"([A-Z][A-Za-z]+(?: [A-Za-z]+)*) Error: ")
_MISSING = re.compile(r"(?:Table(?: Function)?|View|Schema|Catalog) (?:with name|\") ?\"?([^\s\"!]+)")
_LOST = re.compile(
    r"(?:No files found that match the pattern|Cannot open file) \"([^\"]*/(?:lakehouse|ducklake)-[0-9a-f-]{36}\.parquet)\""
)
_UNKEPT = re.compile(r"Failed to convert DuckDB type to DuckLake - unsupported type (.+)")
_CANDIDATE = re.compile(r'Did you mean "?([^"\n]+?)"?\?')


@contextmanager
def translated() -> Iterator[None]:
    """Turn any DuckDB error raised inside into one of ours; others pass."""
    try:
        with interruptible():
            yield
    except duckdb.Error as error:
        raise translate(error) from error
    except OSError as error:
        # An Arrow stream of DuckDB's rows raises this, with DuckDB's text.
        if error.errno is None and _STREAMED.match(str(error)):
            raise translate(_streamed(str(error))) from error
        raise


def _streamed(text: str) -> duckdb.Error:
    """The DuckDB exception that a stream's message speaks of."""
    match = _STREAMED.match(text)
    kind = getattr(duckdb, f"{match[1].replace(' ', '')}Exception", duckdb.Error) if match else duckdb.Error
    if match and match[1] == "INTERRUPT":
        kind = duckdb.InterruptException
    made: duckdb.Error = kind(text)
    return made


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C while DuckDB runs in the calling thread comes out of it as a RuntimeError: make it what it is."""
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from None
        raise


def translate(error: Exception) -> errors.LakehouseError:
    """The error of ours that says what DuckDB's says, with its caret where it has one."""
    text = _PREFIX.sub("", str(error)).strip()
    if _FULL.search(text):
        return errors.DiskFull(
            f"the disk is full: {first_line(text)}", hint="free some space; nothing of this write was kept"
        )
    if _FAILING.search(text):
        return errors.DiskFull(
            f"the disk is full or failing: {first_line(text)}", hint="free some space; nothing of this write was kept"
        )
    if "too many columns on ducklake_inlined" in text:
        return errors.QueryError(
            "a table made in SQL has at most 1,997 columns", hint="load wider ones with lake.ingest, or split the table"
        )
    if foreign := _UNKEPT.search(text):
        return errors.QueryError(f"a table cannot keep the type {foreign[1]}", hint=keeping.way_out(foreign[1]))
    if lost := _LOST.search(text):
        return errors.LakeUnusable(
            f"a data file of the lake is missing: {lost[1]}",
            hint="lakehouse doctor tells whose rows it held; restore it from a backup, or open the lake again if it was"
            " cleaned up meanwhile",
        )
    if isinstance(error, duckdb.OutOfMemoryException) or "max_temp_directory_size" in text:
        return errors.QueryMemory(
            f"the query needs more memory or spill space than allowed: {first_line(text)}",
            hint="select fewer rows or columns, or raise query.memory_limit or storage.max_temp_size",
        )
    if isinstance(error, duckdb.ParserException):
        return errors.SyntaxFault(_caret(text))
    if isinstance(error, duckdb.InterruptException):
        return errors.QueryCancelled("the query was stopped")
    if "read-only" in text.lower() or "read only" in text.lower():
        return errors.LakeReadOnly()
    if "already exists" in text:
        return errors.AlreadyExists(first_line(text), hint="drop it first, or use CREATE OR REPLACE / IF NOT EXISTS")
    if isinstance(error, duckdb.TransactionException) and "conflict" in text.lower():
        return errors.Conflict(first_line(text), hint="nothing was written; run it again")
    if isinstance(error, duckdb.CatalogException):
        return _missing(text)
    if isinstance(error, duckdb.BinderException) and ("column" in text and "not found" in text):
        return errors.ColumnNotFound(_caret(text))
    return errors.QueryError(_caret(text))


def _missing(text: str) -> errors.LakehouseError:
    match = _CANDIDATE.search(text)
    hint = f"did you mean {match[1]}?" if match else None
    body = _CANDIDATE.sub("", text)
    if body.startswith("Schema"):
        return errors.SchemaNotFound(_caret(body), hint=hint)
    if body.startswith(("Table with name", "View with name")):
        return errors.TableNotFound(_caret(body), hint=hint)
    return errors.QueryError(_caret(body), hint=hint)


def missing_table(error: errors.TableNotFound) -> str | None:
    """The name that a TableNotFound made here speaks of."""
    match = _MISSING.search(error.message)
    return match[1] if match else None


def first_line(error: Exception | str) -> str:
    """The first line of what DuckDB says, without its prefix."""
    return _PREFIX.sub("", str(error)).strip().split("\n", 1)[0].strip()


def _caret(text: str) -> str:
    return re.sub(r"\n\s*\n+", "\n", text).rstrip()
