"""Traces in and out of the memory as NDJSON, and the compaction of its journal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, get_args

import msgspec

from lakehouse.durable import explained, opened, sync_folder, write_all
from lakehouse.errors import AlreadyExists, JournalError, SourceNotFound, SourceUnreadable, TraceInvalid
from lakehouse.records import Entry

if TYPE_CHECKING:
    from lakehouse.pathway.model import Trace
    from lakehouse.pathway.store import Pathway

OnConflict = Literal["skip", "fail", "revise"]

_BATCH = 500
_BYTES = 16_000
"""Of the events that compaction puts into one record."""
_FOREIGN = ("memory", "content", "text", "value", "data")
"""What other memory stores call the content (mem0, LangGraph …)."""
_OWNERS = ("user_id", "agent_id", "run_id", "actor_id")
_PLACED = ("id", "key", "namespace", "scope", "kind", "tags", "categories", "score")
"""Where else these go; a score of theirs is the relevance of one search, which says nothing of the memory."""
_ORIGIN = ("created_at", "updated_at", "version", "replay_count")
"""What is said of a trace by the journal it came from."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    added: int
    skipped: int
    """Traces of a uid that was there."""
    revised: int


def export(traces: Iterable[Trace], path: Path) -> int:
    """Write traces as NDJSON, in their order; the file appears whole or not at all.

    Returns:
        How many.
    """
    if not path.name:
        raise SourceUnreadable(f"'{path}' is a folder", hint="name the file that the traces go to")
    draft = path.with_name(path.name + ".part")
    count, rest = 0, iter(traces)
    try:
        with opened(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            while some := list(islice(rest, _BATCH)):
                lines = [json.dumps(trace.to_dict(), ensure_ascii=False) + "\n" for trace in some]
                write_all(file, "".join(lines).encode(), draft)
                count += len(some)
            with explained(draft):
                os.fsync(file)
        with explained(path):
            draft.replace(path)
        sync_folder(path.parent)
    except JournalError as error:
        raise SourceUnreadable(f"{path} cannot be written: {error.message}") from None
    finally:
        draft.unlink(missing_ok=True)
    return count


def import_(pathway: Pathway, path: Path, on_conflict: OnConflict) -> Imported:
    """Add the traces of an NDJSON or JSON file: our own export, or memories as other stores write them.

    Raises:
        SourceNotFound, SourceUnreadable: no such file, or a line that is no JSON object; says which.
        TraceInvalid: a record without content.
        AlreadyExists: a uid is there and `on_conflict` is `fail`; what came before it is added.
    """
    if on_conflict not in get_args(OnConflict):
        raise TraceInvalid(f"'{on_conflict}' is not a way to go on", hint="skip, fail or revise")
    added = skipped = revised = 0
    for where, record in _records(path):
        arguments = _arguments(record, where)
        try:
            pathway.bring(**arguments)
            added += 1
        except AlreadyExists:
            uid = arguments["uid"]
            if on_conflict == "fail":
                raise AlreadyExists(f"{where}: there is a trace {uid}", hint="on_conflict='skip' or 'revise'") from None
            if on_conflict == "skip":
                skipped += 1
                continue
            pathway.revise(uid, **{name: arguments[name] for name in ("content", "kind", "tags", "scope")})
            revised += 1
        except TraceInvalid as error:
            raise TraceInvalid(f"{where}: {error.message}", hint=error.hint) from None
    return Imported(added, skipped, revised)


def compacted(entries: Iterator[Entry]) -> Iterable[dict[str, Any]]:
    """The same events, many in a record, each with the position and time it had: `as_of` stays as it was.

    A damaged record costs all that is in it, so records stay small.
    """
    batch: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        data = msgspec.json.decode(entry.data)
        if not isinstance(data, dict):
            continue
        if size + len(bytes(entry.data)) > _BYTES and batch:
            yield {"batch": batch}
            batch, size = [], 0
        at = entry.time.isoformat(timespec="microseconds")
        batch += [{"seq": entry.seq, "at": at, **event} for event in data.get("batch", [data])]
        size += len(bytes(entry.data))
    if batch:
        yield {"batch": batch}


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a file: one per line, or one JSON list, or a list under `results` or `memories`."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            if _one_a_line(file):  # of those it may have more than the memory can hold
                for _ in _of_lines(path, file):
                    pass  # every line is looked at before anything is added
                file.seek(0)
                yield from _of_lines(path, file)
                return
            text = file.read()
    except FileNotFoundError:
        raise SourceNotFound(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceUnreadable(f"{path} cannot be read: {error}") from None
    try:
        whole = json.loads(text)
    except ValueError:
        yield from list(_of_lines(path, text.split("\n")))
        return
    if isinstance(whole, dict):
        listed = next((whole[key] for key in ("results", "memories", "data") if isinstance(whole.get(key), list)), None)
        whole = listed if listed is not None else [whole]
    records = whole if isinstance(whole, list) else [whole]
    named = [(f"{path.name}, record {number}", record) for number, record in enumerate(records, start=1)]
    yield from [(where, _object(record, where)) for where, record in named]


def _one_a_line(file: TextIO) -> bool:
    """Whether the first line is an object and another line follows; the file is at its beginning again."""
    lines = (line for line in file if line.strip())
    first, second = next(lines, ""), next(lines, None)
    file.seek(0)
    try:
        return second is not None and isinstance(json.loads(first), dict)
    except ValueError:
        return False


def _of_lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path.name}, line {number}"
            try:
                record = json.loads(line)
            except ValueError as error:
                raise SourceUnreadable(f"{where} is no JSON: {error}") from None
            yield where, _object(record, where)


def _object(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise SourceUnreadable(f"{where} is not an object but {type(record).__name__}")
    return record


def _arguments(record: dict[str, Any], where: str) -> dict[str, Any]:
    """What `Pathway.bring` takes, of one record of a file."""
    name = next((key for key in _FOREIGN if key in record), None)
    if name is None:
        raise TraceInvalid(f"{where} has no content", hint=f"one of the keys {', '.join(_FOREIGN)}")
    if not isinstance(record.get("scope") or {}, dict):
        raise TraceInvalid(f"{where}: scope is not a mapping", hint="such as {'user': 'ann'}")
    scope = {str(key): str(value) for key, value in (record.get("scope") or {}).items()}
    common = {"kind": record.get("kind"), "tags": record.get("tags") or record.get("categories") or ()}
    if "uid" in record:  # a trace of ours
        return common | {
            "content": record[name],
            "scope": scope,
            "uid": record["uid"],
            "predecessor": record.get("predecessor"),
            "snapshot": record.get("snapshot"),
            "origin": {key: record[key] for key in _ORIGIN if key in record},
            "retired": bool(record.get("retired")),
            "reason": record.get("retired_reason"),
            "score": record.get("score"),
        }
    for key in _OWNERS:
        if record.get(key):
            scope.setdefault(key.removesuffix("_id"), str(record[key]))
    uid = None if record.get("id") == "" else record.get("id")
    if uid is None and record.get("key") is not None:  # LangGraph: a key is one of its namespace
        space = [str(part) for part in record.get("namespace") or ()]
        scope.setdefault("namespace", ".".join(space) or "default")
        uid = "/".join(part.replace("%", "%25").replace("/", "%2F") for part in (*space, str(record["key"])))
    return common | {
        "content": _foreign(record, name),
        "scope": scope,
        "uid": None if uid is None else str(uid),
        "predecessor": None,
        "snapshot": None,
    }


def _foreign(record: dict[str, Any], name: str) -> Any:
    """The content of another store's memory, with all else that is said of it (its times too) as metadata."""
    metadata = record.get("metadata") or {}
    if not isinstance(metadata, dict):
        metadata = {"metadata": metadata}
    known = {name, "metadata", *_OWNERS, *_PLACED}
    metadata = {key: value for key, value in record.items() if key not in known and value is not None} | metadata
    if not metadata:
        return record[name]
    return {"text" if isinstance(record[name], str) else "value": record[name], "metadata": metadata}
