"""`client.ingest`: files, frames and streams into tables of a lake behind a server."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from lakehouse.client.wire import LONG, Wire
from lakehouse.errors import DiskFull, IngestError, NotRemote, SourceUnreadable
from lakehouse.ingest import files
from lakehouse.ingest.objects import PREFIX, is_object
from lakehouse.ingest.receipt import Contract, Mode, Receipt
from lakehouse.storage.base import Readable, pieces

_KEY = "Idempotency-Key"
_TYPE = {"Content-Type": "application/octet-stream"}
_PACKED = {".gz": "gzip", ".zst": "zstd", ".zip": "zip"}


class RemoteIngest:
    """Loads over HTTP; `client.ingest` is one, and takes what `lake.ingest` takes.

    Args:
        wire: the server.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __call__(
        self,
        source: Any,
        table: str,
        *,
        mode: Mode = "append",
        key: str | Sequence[str] | None = None,
        contract: Contract | None = None,
        format: str | None = None,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> Receipt:
        """Load a source into a table, which is created when missing; see `Ingest.__call__`.

        It is loaded once, however often the connection breaks: every call has a key of its own, by which the server
        knows it again (not a stream, which can be sent once only).

        Args:
            source: the path of one file; an object (`"object:KEY"`, or what `client.storage.put` or `head` gave); a
                pandas, Arrow or Polars object; or a binary stream or pieces of bytes, with `format`.
            table: as of `lake.ingest`, and so the rest.
            mode: `append`, `replace` or `upsert`.
            key: the column or columns of the key, for `upsert`.
            contract: None, `evolve`, `freeze` or `quarantine`.
            format: `csv`, `json`, `parquet` or `excel`; None: by the file name.
            options: options of DuckDB's reader for the format.
            force: load even if the same content was loaded before.

        Raises:
            NotRemote: the path means several files.
        """
        query: dict[str, Any] = {
            "table": table,
            "mode": mode,
            "key": [key] if isinstance(key, str) else list(key or ()),
            "contract": contract,
            "force": force,
            "format": format,
        }
        if options is not None:
            if not isinstance(options, Mapping):
                raise IngestError("options is not a mapping", hint="such as options={'delim': ';'}")
            query["options"] = _json(options)
        headers = {_KEY: uuid.uuid4().hex}
        if is_object(source):
            query["object"] = source.removeprefix(PREFIX) if isinstance(source, str) else source.key
            return self._sent(query, headers, None, f"{PREFIX}{query['object']}", again=True)
        if isinstance(source, str | os.PathLike):
            path = _one_file(source)
            query["format"], packed = _format(path, format)
            headers |= _TYPE | packed
            return self._sent(query, headers, path, os.fsdecode(source), again=True)
        if isinstance(source, bytes | bytearray | memoryview | Readable) or _is_pieces(source):
            if format is None:
                raise IngestError("a stream has no name that tells its format", hint="format='csv', 'json', 'parquet'")
            again = isinstance(source, bytes | bytearray | memoryview)
            return self._sent(query, headers | _TYPE, source, "stream", again=again)
        with _as_arrow(source) as path:
            query["format"] = "arrow"
            return self._sent(query, headers | _TYPE, path, type(source).__name__, again=True)

    def retry(self, table: str) -> Receipt:
        """Load the rejected rows of a table that fit by now; see `Ingest.retry`."""
        found: Receipt = self._wire.json("POST", "/ingest/retry", Receipt, body={"table": table}, wait=LONG)
        return found

    def _sent(self, query: dict[str, Any], headers: dict[str, str], data: Any, name: str, *, again: bool) -> Receipt:
        def content() -> Iterator[bytes]:
            return iter(()) if data is None else pieces(data)

        answer = self._wire.send(
            "POST", "/ingest", query=query, content=content, headers=headers, again=again, wait=LONG
        )
        return replace(msgspec.json.decode(answer.content, type=Receipt), source=name)


def _one_file(source: str | os.PathLike[str]) -> Path:
    found = files.find(os.fsdecode(source))
    if len(found) > 1:
        raise NotRemote(
            f"{os.fsdecode(source)} means {len(found)} files, and a load over HTTP is of one",
            hint="load them one after the other",
        )
    return found[0]


def _format(path: Path, format: str | None) -> tuple[str | None, dict[str, str]]:
    """What the server is told of a file's format and packing, by its name."""
    packed = _PACKED.get(path.suffix.lower())
    inner = Path(path.stem) if packed else path
    if format is None and packed != "zip":  # of an archive the names in it tell
        format = "tsv" if inner.suffix.lower() in (".tsv", ".tab") else files.format_of([inner])
    return format, {} if packed is None else {"Content-Encoding": packed}


def _is_pieces(source: Any) -> bool:
    """Whether it is something that gives pieces of bytes, rather than a frame."""
    return (isinstance(source, Iterator) and not hasattr(source, "__arrow_c_stream__")) or (
        isinstance(source, list | tuple) and all(isinstance(one, bytes | bytearray | memoryview) for one in source)
    )


@contextmanager
def _as_arrow(source: Any) -> Iterator[Path]:
    """A frame as an Arrow IPC stream in a file, for the length of the block.

    Raises:
        IngestError: it is no frame.
        SourceUnreadable: it cannot be made one.
    """
    import pyarrow as pa

    from lakehouse.ingest.sources import of_frame

    kind = type(source).__name__
    frame = of_frame(source).frame
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lakehouse-"))
            path = Path(folder, "frame.arrow")
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, frame.schema) as writer:
                for batch in frame if isinstance(frame, pa.RecordBatchReader) else frame.to_batches():
                    writer.write_batch(batch)
        except pa.ArrowException as error:
            raise SourceUnreadable(f"the {kind} cannot be sent: {error}", hint="nothing was loaded") from None
        except OSError as error:
            raise DiskFull(f"the {kind} cannot be kept on its way: {error}", hint="nothing was loaded") from None
        yield path


def _json(options: Mapping[str, Any]) -> str:
    try:
        return msgspec.json.encode({str(name): value for name, value in options.items()}).decode()
    except (TypeError, ValueError) as error:
        raise IngestError(f"the options cannot be sent: {error}", hint="texts, numbers, lists and mappings") from None
