"""Loading over HTTP: the body as it comes, or an object of the lake. Never a path or a URL."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from lakehouse.errors import (
    Conflict,
    DiskFull,
    IngestError,
    KeyInvalid,
    LakehouseError,
    MediaTypeUnsupported,
    ObjectNotFound,
    QueryError,
    RequestInvalid,
    SchemaNotFound,
    SourceUnreadable,
    TableNotFound,
)
from lakehouse.ingest.receipt import Contract, Mode, Receipt
from lakehouse.server.routing import Call, Route

_TYPES = {
    "text/csv": "csv",
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_ENDINGS = {"csv": "csv", "tsv": "tsv", "json": "json", "ndjson": "ndjson", "parquet": "parquet", "excel": "xlsx"}
_ENDINGS |= {"arrow": "arrow"}
_PACKED = {"gzip": ".gz", "zstd": ".zst"}


class Load(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of `lake.ingest`."""

    table: str
    mode: Mode = "append"
    key: list[str] = []
    contract: Contract | None = None
    format: str | None = None
    object: str | None = None
    """The key of an object to load instead of the body."""
    force: bool = False
    options: str | None = None
    """Options of the reader, as a JSON object."""


class Retry(msgspec.Struct, forbid_unknown_fields=True):
    """Whose rejected rows to load again."""

    table: str


def load(call: Call) -> Receipt:
    """Load the body, or an object, into a table; the same content is loaded once."""
    assert call.stream is not None
    query: Load = call.query
    if query.object is not None:
        if any(call.stream):
            raise RequestInvalid("a load is of an object or of the body, not of both")
        return _ingest(call, f"object:{query.object}", query.format)
    ending = _ending(call)
    try:
        folder = tempfile.TemporaryDirectory(dir=_temporary(call), prefix="tmp-upload-")
    except OSError as error:
        raise DiskFull(f"no folder can be made for the upload: {error.strerror}") from None
    with folder as place:
        path = Path(place, f"upload.{ending}")
        try:
            with path.open("xb") as file:
                for piece in call.stream:
                    file.write(piece)
        except OSError as error:
            raise DiskFull(f"the upload cannot be kept: {error.strerror}", hint="nothing was loaded") from None
        try:
            if ending == "arrow":
                return replace(_ingest(call, _arrow(path), None), source="upload")
            zipped = query.format if ending == "zip" else None
            return replace(_ingest(call, path, "csv" if zipped == "tsv" else zipped), source="upload")
        except LakehouseError as error:
            # Where the upload was kept for a moment is nobody's business, and tells nobody anything.
            text = (
                error.message.partition("\nLINE ")[0].replace(str(path), "the upload").replace(path.name, "the upload")
            )
            error.message = text
            raise


def retry(call: Call) -> Receipt:
    """Load the rejected rows of a table that fit by now."""
    return call.lake.ingest.retry(call.body.table)


def _arrow(path: Path) -> Any:
    """The table in an Arrow IPC stream; a stranger wrote it, so nothing in it is believed unchecked."""
    import pyarrow as pa

    try:
        table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        raise SourceUnreadable(f"the upload is no Arrow IPC stream: {error}", hint="nothing was loaded") from None
    return table


def _options(text: str | None) -> dict[str, Any] | None:
    try:
        return None if text is None else msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise RequestInvalid("options is no JSON object", hint='such as {"delim": ";"}') from None


def _ingest(call: Call, source: Any, format: str | None) -> Receipt:
    query: Load = call.query
    key = query.key[0] if len(query.key) == 1 else query.key or None
    return call.lake.ingest(
        source,
        query.table,
        mode=query.mode,
        key=key,
        contract=query.contract,
        format=format,
        options=_options(query.options),
        force=query.force,
        once=call.name(),
    )


def _ending(call: Call) -> str:
    """What the name of a file with this body ends with."""
    packed = call.headers.get("Content-Encoding", "identity").strip().lower()
    if packed == "zip":
        return "zip"  # the names in it tell what it holds
    kind = call.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    ending = _TYPES.get(kind) if call.query.format is None else _ENDINGS.get(call.query.format)
    if ending is None:
        given = (
            f"the content type {kind!r:.80}" if call.query.format is None else f"the format '{call.query.format:.40}'"
        )
        raise MediaTypeUnsupported(f"{given} is none that can be loaded", hint=f"format={'|'.join(_ENDINGS)}")
    if packed != "identity" and packed not in _PACKED:
        raise MediaTypeUnsupported(f"the encoding {packed!r:.40} is not known", hint="gzip, zstd or zip")
    return ending + _PACKED.get(packed, "")


def _temporary(call: Call) -> Path:
    folder = Path(call.lake.settings.storage.temp_directory or call.lake.path / "tmp")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


ROUTES = (
    Route(
        "POST",
        "/ingest",
        "write",
        load,
        query=Load,
        streams=True,
        refuses=(IngestError, SchemaNotFound, ObjectNotFound, KeyInvalid, Conflict, QueryError, MediaTypeUnsupported),
        reads=("Content-Type", "Content-Encoding"),
        counts_once=True,
    ),
    Route(
        "POST",
        "/ingest/retry",
        "write",
        retry,
        body=Retry,
        refuses=(IngestError, SchemaNotFound, TableNotFound, Conflict, QueryError),
    ),
)
