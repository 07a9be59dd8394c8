"""Traces in and out of the memory as NDJSON, and the compaction of its journal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from lakehouse.errors import AlreadyExists, SourceNotFound, SourceUnreadable, TraceInvalid
from lakehouse.records import Entry

if TYPE_CHECKING:
    from lakehouse.pathway.reading import Memory
    from lakehouse.pathway.store import Pathway

OnConflict = Literal["skip", "fail", "revise"]

_BATCH = 500
_FOREIGN = ("memory", "content", "text", "value", "data")
"""What other memory stores call the content (mem0, LangGraph …)."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    added: int
    skipped: int
    """Traces of a uid that was there."""
    revised: int


def export(pathway: Memory, path: Path, arguments: Mapping[str, Any]) -> int:
    """Write traces as NDJSON, oldest first; the file appears whole or not at all.

    Returns:
        How many.
    """
    draft = path.with_name(path.name + ".part")
    traces = list(pathway.each(**{"include_retired": True, **arguments}))
    try:
        with draft.open("w", encoding="utf-8") as file:
            for trace in reversed(traces):
                file.write(json.dumps(trace.to_dict(), ensure_ascii=False) + "\n")
        draft.replace(path)
    except OSError as error:
        raise SourceUnreadable(f"{path} cannot be written: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
    return len(traces)


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
        after = arguments.pop("after")
        uid = arguments["uid"]
        if uid is not None and pathway.has(uid):
            if on_conflict == "fail":
                raise AlreadyExists(f"{where}: there is a trace {uid}", hint="on_conflict='skip' or 'revise'")
            if on_conflict == "skip":
                skipped += 1
                continue
            pathway.revise(uid, arguments["content"], kind=arguments["kind"], tags=arguments["tags"])
            revised += 1
            continue
        uid = pathway.bring(**arguments, predecessor=after["predecessor"]).uid
        if after["retired"]:
            pathway.retire(uid, after["reason"])
        if after["score"] is not None:
            pathway.feedback(uid, after["score"])
        added += 1
    return Imported(added, skipped, revised)


def compacted(entries: Iterator[Entry]) -> Iterable[dict[str, Any]]:
    """The same events in records of several hundred, each with the position and time it had: `as_of` stays as it was."""
    batch: list[dict[str, Any]] = []
    for entry in entries:
        data = msgspec.json.decode(entry.data)
        if not isinstance(data, dict):
            continue
        at = entry.time.isoformat(timespec="microseconds")
        batch += [{"seq": entry.seq, "at": at, **event} for event in data.get("batch", [data])]
        if len(batch) >= _BATCH:
            yield {"batch": batch}
            batch = []
    if batch:
        yield {"batch": batch}


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a file: one per line, or one JSON list, or a list under `results` or `memories`."""
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise SourceNotFound(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceUnreadable(f"{path} cannot be read: {error}") from None
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, dict):
        listed = next((whole[key] for key in ("results", "memories", "data") if isinstance(whole.get(key), list)), None)
        whole = listed if listed is not None else [whole]
    if isinstance(whole, list):
        records = [(f"{path.name}, record {number}", record) for number, record in enumerate(whole, start=1)]
    else:
        records = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                try:
                    records.append((f"{path.name}, line {number}", json.loads(line)))
                except ValueError as error:
                    raise SourceUnreadable(f"{path.name}, line {number} is no JSON: {error}") from None
    for where, record in records:
        if not isinstance(record, dict):
            raise SourceUnreadable(f"{where} is not an object but {type(record).__name__}")
        yield where, record


def _arguments(record: dict[str, Any], where: str) -> dict[str, Any]:
    name = next((key for key in _FOREIGN if key in record), None)
    if name is None:
        raise TraceInvalid(f"{where} has no content", hint=f"one of the keys {', '.join(_FOREIGN)}")
    scope = {str(key): str(value) for key, value in (record.get("scope") or {}).items()}
    for key in ("user_id", "agent_id", "run_id", "actor_id"):
        if record.get(key):
            scope.setdefault(key.removesuffix("_id"), str(record[key]))
    tags = record.get("tags") or record.get("categories") or ()
    content = record[name]
    if name != "content" and record.get("metadata"):
        content = {"text": content, "metadata": record["metadata"]}
    after = {
        "predecessor": record.get("predecessor"),
        "retired": bool(record.get("retired")),
        "reason": record.get("retired_reason"),
        "score": record.get("score") if "uid" in record else None,
    }
    uid = record.get("uid") or record.get("id")
    return {
        "content": content,
        "kind": record.get("kind"),
        "tags": tags,
        "scope": scope,
        "uid": None if uid is None else str(uid),
        "snapshot": record.get("snapshot"),
        "after": after,
    }
