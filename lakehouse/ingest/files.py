"""The files of a source: found, hashed, unpacked, and of what format they are."""

from __future__ import annotations

import glob
import hashlib
import lzma
import re
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from lakehouse.errors import DiskFull, SourceEmpty, SourceNotFound, SourceUnreadable

_FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "csv",
    ".json": "json",
    ".ndjson": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "excel",
}
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
CHUNK = 1 << 20


def find(name: str) -> list[Path]:
    """The files that a path, glob pattern or folder means.

    Raises:
        SourceNotFound: there is none.
        SourceUnreadable: there is something else, or it has a name that cannot be used.
    """
    _check_name(name)
    try:
        found = _find(name)
    except (OSError, ValueError, RuntimeError, re.error) as error:  # too long, a NUL, ~nobody
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceNotFound(f"{name[:200]!r} cannot be looked for: {reason}") from None
    for path in found:
        _check_name(str(path))
    return found


def _check_name(name: str) -> None:
    """File names are bytes; DuckDB and the notes of commits take only those that are text."""
    printable = name.encode("utf-8", "backslashreplace").decode()
    if printable != name:
        raise SourceUnreadable(f"the name of {printable} is not UTF-8", hint="rename the file or folder")


def _find(name: str) -> list[Path]:
    if not name:
        raise SourceNotFound("the source is an empty text", hint="give a path; . is the current folder")
    path = Path(name).expanduser()
    if path.is_dir():
        found = [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".") and _suffix(p)]
        if not found:
            raise SourceNotFound(f"the folder {name} holds no file of a known format", hint=_known())
        return found
    if path.is_file():
        return [path]
    if any(mark in name for mark in "*?["):
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
        if not found:
            raise SourceNotFound(f"no file matches {name}", hint=f"looked from {Path.cwd()}")
        return found
    if path.exists():
        raise SourceUnreadable(f"{name} is neither a file nor a folder", hint="copy its content to a file first")
    raise SourceNotFound(f"there is no file {name}", hint=f"looked from {Path.cwd()}")


def fingerprints(paths: list[Path]) -> list[tuple[str, int, int]]:
    """Path, size and time of every file: equal before and after, it was not written to meanwhile."""
    try:
        return [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]
    except OSError as error:
        raise SourceNotFound(f"{error.filename} is gone: {error.strerror}") from None


def hashing(paths: list[Path], stack: ExitStack) -> Callable[[], str]:
    """Hash in the background: reading a file to load it and to hash it then overlap."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="lakehouse-hash")
    stack.callback(pool.shutdown, wait=False, cancel_futures=True)
    closed = threading.Event()
    stack.callback(closed.set)
    future: Future[str] = pool.submit(_hash, paths, closed)
    return future.result


def _hash(paths: list[Path], closed: threading.Event) -> str:
    """The hash of all files together; of no use once the source is closed, as it then stops where it is."""
    digests = []
    buffer = memoryview(bytearray(CHUNK))
    for path in paths:
        digest = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as file:
                while (size := file.readinto(buffer)) and not closed.is_set():
                    digest.update(buffer[:size])
            digests.append(digest.hexdigest())
        except OSError as error:
            raise SourceUnreadable(f"{path} cannot be read: {error.strerror}") from None
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _suffix(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes and (suffixes[-1] in _FORMATS or suffixes[-1] == ".zip") else None


def format_of(paths: list[Path]) -> str:
    """The one format that the names of all files tell.

    Raises:
        SourceUnreadable: a name tells none, or they tell several.
    """
    kinds: dict[str, Path] = {}
    for path in paths:
        suffix = _suffix(path)
        if suffix is None or suffix == ".zip":
            old = " (old Excel files must be saved as .xlsx)" if path.suffix.lower() == ".xls" else ""
            raise SourceUnreadable(f"the format of {path.name} is not known{old}", hint=_known())
        kinds[_FORMATS[suffix]] = path
    if len(kinds) > 1:
        names = " and ".join(path.name for path in kinds.values())
        raise SourceUnreadable(f"the files are of different formats ({names})", hint="load them separately")
    return next(iter(kinds))


def _known() -> str:
    return f"give format=; known endings: {' '.join(sorted(_FORMATS))}, each also .gz, .zst or in a .zip"


def unpacked(paths: list[Path], temp: Path, limit: int, stack: ExitStack) -> list[Path]:
    """The same files with every zip archive replaced by the files in it."""
    result: list[Path] = []
    left = limit
    for path in paths:
        if path.suffix.lower() != ".zip":
            result.append(path)
            continue
        temp.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=temp, prefix="unzip-")))
        members, left = _unzip(path, folder, left, limit)
        result.extend(members)
    return result


def _unzip(path: Path, folder: Path, left: int, limit: int) -> tuple[list[Path], int]:
    members: list[Path] = []
    try:
        with zipfile.ZipFile(path) as archive:
            for number, info in enumerate(sorted(archive.infolist(), key=lambda info: info.filename)):
                base = Path(info.filename).name
                if info.is_dir() or base.startswith((".", "__MACOSX")) or info.filename.startswith("__MACOSX"):
                    continue
                target = folder / str(number) / base  # only the last part of the stored name: it cannot escape
                target.parent.mkdir()
                with archive.open(info) as packed, target.open("wb") as file:
                    while chunk := packed.read(CHUNK):
                        left -= len(chunk)
                        if left < 0:
                            raise DiskFull(
                                f"{path.name} unpacks to more than {limit:,} bytes (storage.max_temp_size)",
                                hint="raise storage.max_temp_size, or unpack it yourself",
                            )
                        file.write(chunk)
                members.append(target)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError) as error:
        raise SourceUnreadable(f"{path.name} is not a readable zip archive: {error}") from None
    except OSError as error:
        raise DiskFull(f"{path.name} could not be unpacked into {folder.parent}: {error.strerror}") from None
    if not members:
        raise SourceEmpty(f"the archive {path.name} holds no file")
    return members, left
