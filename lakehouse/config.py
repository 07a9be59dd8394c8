"""Settings: `lakehouse.toml` in the lake folder < environment < arguments.

A section is one frozen struct and a setting one field of it; adding a section to `Settings` is all
that is needed for the file, the environment (`LAKEHOUSE_<SECTION>_<KEY>`), the arguments and
`lakehouse config` to know it.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from lakehouse.errors import ConfigError

FILE_NAME = "lakehouse.toml"
ENV_PREFIX = "LAKEHOUSE_"
PATH_VARIABLE = "LAKEHOUSE_PATH"
SNAPSHOT_VARIABLE = "LAKEHOUSE_SNAPSHOT"
"""The snapshot that the lake of `LAKEHOUSE_PATH` is read at, for kernels that are to see one moment."""
READ_ONLY_VARIABLE = "LAKEHOUSE_READ_ONLY"
"""With any value, the lake of `LAKEHOUSE_PATH` is opened for reading only."""

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
CountOrNone = Annotated[int, msgspec.Meta(ge=0)]
Size = Annotated[str, msgspec.Meta(pattern=r"^\d+(\.\d+)?\s*([KMGT]i?)?B$")]
AGE = r"^\s*(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w|seconds?|minutes?|hours?|days?|weeks?)\s*$"
Age = Annotated[str, msgspec.Meta(pattern=AGE, description="an age such as '30d' or '12 hours'")]


class Secret(str):
    """A string that never shows itself: its repr and str are `***`; `reveal()` gives the value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return "***"

    def reveal(self) -> str:
        """The value itself, for the one place that must send it."""
        return str.__str__(self)


def masked(value: Any) -> Any:
    """A setting as it may be shown: without what is secret in it, also where JSON is made of it."""
    if isinstance(value, tuple):
        return [masked(item) for item in value]
    return str(value) if isinstance(value, Secret) else value


class AuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[auth]`: who may use the server. Every layer that is configured must pass."""

    token: Secret | None = None
    """The token for reading and writing; None: the one in the variable `token_env`."""
    token_env: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="a variable's name")] = (
        "AUTH_TOKEN"  # noqa: S105 - a name
    )
    """The variable with the token; the same name with `_SECONDARY` or `_READ` has more of them, separated by commas.
    With `_FILE` behind any of the three: the path of a file with the same, which only its owner may read."""
    secondary_tokens: tuple[Secret, ...] = ()
    """Further tokens for reading and writing, such as the old one in the middle of a rotation."""
    read_tokens: tuple[Secret, ...] = ()
    """Tokens for reading only."""
    allowed_ips: tuple[str, ...] = ()
    """Addresses and networks (CIDR) that may connect at all; empty: any."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose X-Forwarded-For is believed."""
    max_failures: Count = 20
    """Wrong tokens from one address within `failure_window` before it has to wait."""
    failure_window: Seconds = 60.0
    """Seconds after which a wrong token is forgotten."""


class CatalogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[catalog]`: who writes, and how long a writer waits for its turn."""

    author: str | None = None
    """Name on every commit; None: the login name."""
    lock_timeout: Seconds = 60.0
    """Seconds a write waits for the writer lock before it fails."""
    sync: bool = True
    """Flush data files to the disk before a commit is acknowledged."""


class StorageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[storage]`: where temporary data goes and how much of it there may be."""

    temp_directory: str | None = None
    """Spill and unpack folder; None: `tmp` in the lake folder."""
    max_temp_size: Size = "50GB"
    """Most that one process may spill or unpack."""
    max_put_bytes: Count | None = None
    """Most bytes that one object may have; None: no cap."""
    put_caps: dict[str, Count] = {}
    """Most bytes that one object may have, by key prefix; the longest prefix wins. `[storage.put_caps]`"""


class QuerySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[query]`: the limits of one process."""

    max_rows: Count = 10_000_000
    """Most rows a result hands over as one object."""
    memory_limit: Size | None = None
    """Memory for queries; None: DuckDB's own default (80 % of the machine)."""
    threads: Count | None = None
    """Threads for queries; None: one per core."""
    timeout: Seconds | None = None
    """Seconds a query may take; None: no limit."""
    cache_size: Size = "256MB"
    """Memory for results that can be given again; `0B` turns it off."""
    buffer_size: Size = "64MB"
    """A result up to this size is kept in memory; a larger one is read again when asked for."""
    progress: bool = True
    """Show progress for anything over two seconds."""
    grid: bool = True
    """Show results of more rows than a page as a grid, in notebooks with widgets."""
    history_rows: CountOrNone = 10_000
    """Queries kept in the history of the lake; 0 turns it off."""
    sandbox: Literal["full", "gate-only"] = "full"
    """SQL from strangers is refused where the kernel cannot hold it; `gate-only`: the gate alone will do there."""
    sandbox_workers: Count = 8
    """Most processes for SQL from strangers; one principal has at most half of them."""
    sandbox_memory: Size = "1GB"
    """Memory for queries of each of them."""
    sandbox_threads: Count | None = None
    """Threads for queries of each of them; None: one per core."""
    sandbox_spill: Size = "2GB"
    """Most that each of them may spill to disk."""
    sandbox_timeout: Seconds = 300.0
    """Most seconds that a query of a stranger may take until its last row is taken."""


class MaintenanceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[maintenance]`: what `lake.maintenance` keeps."""

    keep_snapshots: Age = "30d"
    """The lake can be read as of any moment this far back; `run()` expires what is older."""
    keep_files: Age = "1d"
    """Files that no snapshot needs stay this long: somebody may still be reading them."""
    small_file: Size = "32MB"
    """Data files below this size are merged by `compact()`."""


class ReportsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[reports]`: where reports stand, and what a run of one may take."""

    folder: str | None = None
    """A further folder with notebooks of reports; those in `reports` in the lake folder are always there."""
    timeout: Seconds = 1800.0
    """Seconds until a run is ended."""
    workers: Count = 2
    """Runs of a batch at once."""
    max_output_bytes: Count = 20_000_000
    """Bytes that are kept of what one cell gives."""


class ObserverSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[observer]`: what is kept of the events of what runs."""

    ring_size: Count = 2_000
    """Events that a process keeps in memory; a full ring lets go of its oldest."""
    persist: bool = True
    """Keep events in the lake's journal as well, where all processes read them."""
    require_persist: bool = False
    """Refuse an event that cannot be written to the journal; else that is logged and counted."""
    sync: Literal["always", "interval", "never"] = "always"
    """When an event is forced to the disk: before it is acknowledged, within about a second, or when the system likes."""
    keep: Age = "90d"
    """Events older than this are left out when the journal is compacted."""
    listeners: Count = 500
    """Who may listen to the events of one server at once; each holds a connection."""
    openlineage: str | None = None
    """Where OpenLineage run events go as well: `file:PATH` or an `http(s)://` address; None: nowhere."""
    openlineage_key: Secret | None = None
    """The API key that such an address asks for."""
    openlineage_namespace: str | None = None
    """What the lake is called there; None: `lakehouse://HOST/PATH`."""


class WorkflowSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[workflow]`: what runs of workflows may do."""

    workers: Count | None = None
    """Nodes that run at once; None: one per core."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts that nodes of the mode `http` may call, such as `api.example.com` or `127.0.0.1:8080`; empty: none."""
    preload: tuple[str, ...] = ()
    """Modules that are loaded once, before the processes of the nodes are made from that one."""
    keep_runs: Count = 1000
    """Runs of each workflow whose records are kept."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of a lake, by section."""

    auth: AuthSettings = AuthSettings()
    catalog: CatalogSettings = CatalogSettings()
    storage: StorageSettings = StorageSettings()
    query: QuerySettings = QuerySettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    reports: ReportsSettings = ReportsSettings()
    observer: ObserverSettings = ObserverSettings()
    workflow: WorkflowSettings = WorkflowSettings()


class Origin(msgspec.Struct, frozen=True):
    """One effective setting and where it came from."""

    section: str
    key: str
    value: Any
    source: str


def snapshot(environ: Mapping[str, str] | None = None) -> int | None:
    """The snapshot that the environment pins the lake to.

    Raises:
        ConfigError: it is no snapshot id.
    """
    text = (os.environ if environ is None else environ).get(SNAPSHOT_VARIABLE)
    if not text:
        return None
    if not text.isdecimal():
        raise ConfigError(f"${SNAPSHOT_VARIABLE} is no snapshot id: {text!r:.40}")
    return int(text)


def parse_size(text: str) -> int:
    """Bytes of a size such as `64MB` (decimal units) or `1GiB` (binary ones), as DuckDB reads them."""
    number = text.rstrip("BiKMGT ")
    unit = text[len(number) :].strip()
    base = 1024 if "i" in unit else 1000
    return int(float(number) * base ** "BKMGT".index(unit[0]))


def parse_age(text: str) -> timedelta:
    """The length of an age such as `30d`, `12 hours` or `90s`.

    Raises:
        ConfigError: the text is no age.
    """
    found = re.match(AGE, text) if isinstance(text, str) else None
    if found is None:
        raise ConfigError(f"'{text}' is not an age", hint="such as 30d, 12 hours or 90s")
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}[found[2][0]]
    try:
        return timedelta(seconds=float(found[1]) * seconds)
    except OverflowError:
        raise ConfigError(f"'{text}' is too long an age", hint="such as 30d, 12 hours or 90s") from None


def load(
    folder: Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The effective settings of the lake in `folder`.

    Args:
        folder: the lake folder, whose `lakehouse.toml` is read if there; None: no file.
        overrides: values by section and key, which win over file and environment.
        environ: the environment; None: that of this process.

    Raises:
        ConfigError: an unknown section, key or variable, or a value of the wrong type.
    """
    settings: Settings = explain(folder, overrides, environ)[0]
    return settings


def explain(
    folder: Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    environ: Mapping[str, str] | None = None,
    model: type[Any] = Settings,
) -> tuple[Any, list[Origin]]:
    """Like `load`, with the origin of every value; `model` is the struct whose fields are the sections."""
    environ = os.environ if environ is None else environ
    values: dict[str, dict[str, Any]] = {}
    sources: dict[tuple[str, str], str] = {}
    layers = [_from_file(folder, model), _from_environment(environ, model), _from_arguments(overrides, model)]
    for layer in layers:
        for section, key, value, source in layer:
            hint = get_type_hints(_sections(model)[section], include_extras=True)[key]
            values.setdefault(section, {})[key] = _convert(value, hint, source, strict=not source.startswith("$"))
            sources[section, key] = source
    built = {name: struct(**values.get(name, {})) for name, struct in _sections(model).items()}
    origins = [
        Origin(name, field, getattr(built[name], field), sources.get((name, field), "default"))
        for name, struct in _sections(model).items()
        for field in struct.__struct_fields__
    ]
    return model(**built), origins


_Layer = Iterator[tuple[str, str, Any, str]]


def _sections(model: type[Any]) -> dict[str, Any]:
    return get_type_hints(model)


def _from_file(folder: Path | None, model: type[Any]) -> _Layer:
    if folder is None or not (path := folder / FILE_NAME).is_file():
        return
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    for section, table in document.items():
        if isinstance(table, dict):
            _section(model, section, f"{path}: [{section}]")
        elif section in _sections(model):
            raise ConfigError(f"{path}: '{section}' must be a section ([{section}]), not a value")
        for key, value in table.items() if isinstance(table, dict) else [("", table)]:
            _known(model, section, key, f"{path}: [{section}] {key}".rstrip())
            yield section, key, value, f"{path}: [{section}] {key}"


def _from_environment(environ: Mapping[str, str], model: type[Any]) -> _Layer:
    names = {
        f"{ENV_PREFIX}{section}_{key}".upper(): (section, key)
        for section, struct in _sections(model).items()
        for key in struct.__struct_fields__
    }
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX) or variable in (PATH_VARIABLE, SNAPSHOT_VARIABLE, READ_ONLY_VARIABLE):
            continue
        if variable not in names:
            raise ConfigError(f"environment variable {variable} is not a setting", hint=_nearest(variable, names))
        section, key = names[variable]
        yield section, key, environ[variable], f"${variable}"


def _from_arguments(overrides: Mapping[str, Mapping[str, Any]] | None, model: type[Any]) -> _Layer:
    for section, table in (overrides or {}).items():
        _section(model, section, f"settings: {section}")
        if not isinstance(table, Mapping):
            raise ConfigError(f"settings: '{section}' must be a mapping of keys to values")
        for key, value in table.items():
            _known(model, section, key, f"settings: {section}.{key}")
            yield section, key, value, f"argument {section}.{key}"


def _known(model: type[Any], section: str, key: str, where: str) -> None:
    _section(model, section, where)
    fields = _sections(model)[section].__struct_fields__
    if key not in fields:
        raise ConfigError(f"{where}: there is no setting '{key}' in [{section}]", hint=_nearest(key, fields))


def _section(model: type[Any], section: str, where: str) -> None:
    if section not in (sections := _sections(model)):
        raise ConfigError(f"{where}: there is no section '{section}'", hint=_nearest(section, sections))


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}"


def _convert(value: Any, hint: Any, source: str, *, strict: bool) -> Any:
    try:
        if not strict and get_origin(hint) is dict:  # a variable holds a mapping as JSON
            value = msgspec.json.decode(value)
        if not strict and get_origin(hint) is tuple:  # and a list as texts separated by commas
            value = [part.strip() for part in value.split(",") if part.strip()]
        return msgspec.convert(value, hint, strict=strict, dec_hook=_decode)
    except (msgspec.ValidationError, msgspec.DecodeError):
        # The message never repeats the value: it may be a secret in the wrong place.
        got = "" if not strict else f", not {type(value).__name__}"
        raise ConfigError(f"{source.removeprefix('$')}: expected {_describe(hint)}{got}") from None


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Secret and isinstance(value, str):
        return Secret(value.strip())
    raise TypeError


def _describe(hint: Any) -> str:
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_describe(part) for part in arguments if part is not type(None))
    if get_origin(hint) is Literal:
        return " or ".join(f"'{part}'" for part in arguments)
    if get_origin(hint) is dict:
        return f"a table of {_describe(arguments[1])} by name"
    if get_origin(hint) is tuple:
        return "a list of texts"
    if get_origin(hint) is Literal:
        return " or ".join(f"'{word}'" for word in arguments)
    if arguments and isinstance(arguments[1], msgspec.Meta):
        meta = arguments[1]
        if meta.pattern:
            return meta.description or "a size such as '64MB' or '1GiB'"
        least = "above 0" if meta.ge is None else f"of at least {meta.ge}"
        return f"{_describe(arguments[0])} {least}"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, "text")
