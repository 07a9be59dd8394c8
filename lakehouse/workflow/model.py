"""What a workflow is: frozen structs, from TOML or Python, and every problem of a definition by file, node and key."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import msgspec

from lakehouse.catalog.names import nearest
from lakehouse.errors import WorkflowInvalid

if TYPE_CHECKING:
    from lakehouse.workflow.site import Site
    from lakehouse.workflow.work import Work

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_AT = re.compile(r"(.*) - at `\$\.?([^`]*)`$", re.S)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`$", re.S)
_MISSING = re.compile(r"Object missing required field `(.*)`$", re.S)
_MOST_FLAWS = 20  # are told at once
_DEEPEST = 50
_LARGEST = 64 << 20  # bytes of a definition

Value = bool | int | float | str
"""What a parameter may be."""
Seconds = Annotated[float, msgspec.Meta(gt=0, le=10_000_000)]
Retries = Annotated[int, msgspec.Meta(ge=0, le=100)]
Workers = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class Flaw(NamedTuple):
    """One thing that is wrong with a definition."""

    node: str | None
    key: str | None
    message: str

    def told(self, file: str) -> str:
        """One line that says where it is."""
        node = None if self.node is None else f"node '{self.node}'"
        key = None if self.key is None else f"key '{self.key}'"
        return ": ".join([", ".join(part for part in (file, node, key) if part), self.message])


class Node(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all modes have in common; a mode is a subclass, and an entry point `lakehouse.workflow_modes` adds one."""

    mode: ClassVar[str] = ""
    reusable: ClassVar[bool] = False
    """Whether the process that ran one may run another: nothing in it is the user's code."""
    preload: ClassVar[tuple[str, ...]] = ()
    """Modules worth having loaded before processes are made."""
    after: tuple[str, ...] = ()
    """Nodes that must be done before; what reads a table comes after what writes it without being told."""
    retries: Retries = 0
    """How often it is tried again when it fails."""
    backoff: Seconds = 1.0
    """Seconds before the first retry; each further one waits twice as long, up to five minutes, give or take a half."""
    timeout: Seconds | None = None
    """Seconds until its process is killed with all that it started; None: never."""
    skip: bool = True
    """Whether it may be skipped when its definition, its parameters and its inputs are what they were."""
    description: str = ""

    def reads(self, site: Site) -> tuple[str, ...] | None:
        """The tables that it reads, as `site.table` writes them; None when only running it tells."""
        return None

    def writes(self, site: Site) -> tuple[str, ...]:
        """The tables that it makes or adds to."""
        return ()

    def uses(self, site: Site) -> frozenset[str]:
        """Names of the parameters that it uses."""
        return frozenset(_named(msgspec.structs.asdict(self)))

    def files(self, site: Site) -> tuple[Path, ...]:
        """Files whose content is a part of its definition."""
        return ()

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        """Key and message of what would keep it from running."""
        return iter(())

    def run(self, work: Work) -> None:
        """Do it; runs in a process of its own. Returning says that it is done, an exception that it is not."""
        raise NotImplementedError


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes by name, and what holds for all of them."""

    name: str
    nodes: dict[str, Node]
    description: str = ""
    params: dict[str, Value] = {}
    """Parameters with the values they have unless a run gives others; a value has the type of its default."""
    workers: Workers | None = None
    """Nodes that run at once; None: `workflow.workers`."""
    pin: bool = False
    """Whether all nodes read the lake as it was when the run began, apart from what the run itself makes."""
    folder: str = ""
    """Where relative paths begin; empty: where the process runs."""
    file: str = ""
    """The file that it was read from; empty: none."""

    @property
    def place(self) -> str:
        """How messages name it."""
        return self.file or f"workflow '{self.name}'"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; `from_dict` reads it."""
        head = {name: getattr(self, name) for name in self.__struct_fields__ if name != "nodes"}
        return {**head, "nodes": {name: described(node) for name, node in self.nodes.items()}}

    def bound(self, given: Mapping[str, Any]) -> dict[str, Value]:
        """The values of all parameters.

        Raises:
            WorkflowInvalid: one is not known, or of another type than its default.
        """
        problems = []
        for name, value in given.items():
            if name not in self.params:
                known = nearest(name, self.params) or f"known: {', '.join(self.params) or 'none'}"
                problems.append(Flaw(None, f"params.{name}", f"there is no such parameter ({known})"))
            elif not _fits(value, self.params[name]):
                wanted = type(self.params[name]).__name__
                problems.append(Flaw(None, f"params.{name}", f"expected {wanted}, not {type(value).__name__}"))
        refuse(self.place, problems)
        return {**self.params, **given}


def described(node: Node) -> dict[str, Any]:
    """A node as JSON has it, with its mode and without what is as usual."""
    usual = _usual(type(node))
    values = msgspec.to_builtins(msgspec.structs.asdict(node))
    return {"mode": node.mode, **{name: value for name, value in values.items() if value != usual[name]}}


@cache
def _usual(kind: type[Node]) -> dict[str, Any]:
    """The defaults of a mode, as JSON has them."""
    fields = msgspec.structs.fields(kind)
    made = {one.name: one.default_factory() for one in fields if one.default_factory is not msgspec.NODEFAULT}
    return {one.name: _builtin(made.get(one.name, one.default)) for one in fields}


def digest(*parts: Any) -> str:
    """A hash of values that JSON has; the order of keys does not matter."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted", enc_hook=str)).hexdigest()


def read(path: Path, modes: Mapping[str, type[Node]]) -> Workflow:
    """The workflow in a TOML file.

    Raises:
        WorkflowInvalid: it cannot be read or is none; names the file, and the node and key of every problem.
    """
    place = str(path)
    try:
        if path.stat().st_size > _LARGEST:
            raise WorkflowInvalid(f"{place}: a definition has at most {_LARGEST >> 20} MB")
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WorkflowInvalid(f"{place}: it cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorkflowInvalid(f"{place}: it is not valid TOML: {error}") from None
    except RecursionError:
        raise WorkflowInvalid(f"{place}: it is nested too deep") from None
    return from_dict({"name": path.stem, **document, "folder": str(path.parent.absolute()), "file": place}, modes)


def from_dict(document: Mapping[str, Any], modes: Mapping[str, type[Node]]) -> Workflow:
    """A workflow from what TOML or JSON has.

    Args:
        document: the keys of a `Workflow`, with a mapping for each node.
        modes: the class of each mode.

    Raises:
        WorkflowInvalid: names the node and key of every problem.
    """
    place = str(document.get("file") or f"workflow '{document.get('name', '')}'")
    problems: list[Flaw] = []
    if _depth(document) > _DEEPEST:
        raise WorkflowInvalid(f"{place}: it is nested too deep")
    tables = document.get("nodes")
    if not isinstance(tables, Mapping) or not tables:
        problems.append(Flaw(None, "nodes", "expected a table for each node, such as [nodes.daily]"))
        tables = {}
    nodes: dict[str, Node] = {}
    for name, table in tables.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            problems.append(Flaw(str(name)[:100], None, "a name has letters, digits, _ and -, at most 100"))
        elif not isinstance(table, Mapping):
            problems.append(Flaw(name, None, "expected a table of keys"))
        elif isinstance(found := _node(name, table, modes), Flaw):
            problems.append(found)
        else:
            nodes[name] = found
    head = {key: value for key, value in document.items() if key != "nodes"}
    try:
        workflow = msgspec.convert({**head, "nodes": {}}, _Head)
        if not NAME.fullmatch(workflow.name):
            problems.append(Flaw(None, "name", "a name has letters, digits, _ and -, at most 100"))
        problems += [
            Flaw(None, f"params.{name}"[:120], "a name has letters, digits, _ and -, at most 100")
            for name in workflow.params
            if not NAME.fullmatch(name)
        ]
    except msgspec.ValidationError as error:
        problems.append(_explained(None, error, _Head))
    refuse(place, problems)
    return Workflow(**{**msgspec.structs.asdict(workflow), "nodes": nodes})


def refuse(place: str, problems: Iterable[Flaw]) -> None:
    """Raise WorkflowInvalid with every problem, one a line, if there is any."""
    found = list(problems)
    if found:
        lines = [problem.told(place) for problem in found[:_MOST_FLAWS]]
        more = len(found) - len(lines)
        hint = f"and {more} more problems" if more else "nothing was run"
        raise WorkflowInvalid("\n".join(lines), hint=hint)


def bound(value: Any, params: Mapping[str, Any]) -> Any:
    """A value of a definition with each text `$name` in it replaced by the value of that parameter."""
    if isinstance(value, str) and value.startswith("$") and NAME.fullmatch(value[1:]):
        return params[value[1:]]
    if isinstance(value, Mapping):
        return {key: bound(item, params) for key, item in value.items()}
    return [bound(item, params) for item in value] if isinstance(value, list | tuple) else value


class _Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `Workflow` apart from its nodes."""

    name: str
    nodes: dict[str, Any] = {}
    description: str = ""
    params: dict[str, Value] = {}
    workers: Workers | None = None
    pin: bool = False
    folder: str = ""
    file: str = ""


def _node(name: str, table: Mapping[str, Any], modes: Mapping[str, type[Node]]) -> Node | Flaw:
    mode = table.get("mode")
    kind = modes.get(mode) if isinstance(mode, str) else None
    if kind is None:
        known = nearest(mode, modes) if isinstance(mode, str) else None
        what = "it is missing" if mode is None else f"there is no mode {mode!r:.80}"
        return Flaw(name, "mode", f"{what} ({known or 'known: ' + ', '.join(sorted(modes))})")
    try:
        return msgspec.convert({key: value for key, value in table.items() if key != "mode"}, kind)
    except msgspec.ValidationError as error:
        return _explained(name, error, kind)


def _explained(node: str | None, error: msgspec.ValidationError, kind: type[msgspec.Struct]) -> Flaw:
    """What msgspec says, with the key as a key."""
    text, key = str(error), None
    if match := _AT.fullmatch(text):
        text, key = match[1], match[2] or None
    if match := _UNKNOWN.fullmatch(text):
        known = nearest(match[1], kind.__struct_encode_fields__)
        listed = known or "known: " + ", ".join(kind.__struct_encode_fields__)
        return Flaw(node, f"{key}.{match[1]}"[:120] if key else match[1][:120], f"there is no such key ({listed})")
    if match := _MISSING.fullmatch(text):
        return Flaw(node, match[1], "it is missing")
    return Flaw(node, key, text[:1].lower() + text[1:])


def _fits(value: Any, default: Value) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    return isinstance(value, int | float if isinstance(default, float) else type(default))


def _depth(value: Any) -> int:
    """How deep mappings and lists are nested, counted without recursion."""
    deepest, level = 0, [value]
    while level and deepest <= _DEEPEST:
        deepest += 1
        level = [
            inner
            for one in level
            if isinstance(one, Mapping | list)
            for inner in (one.values() if isinstance(one, Mapping) else one)
        ]
    return deepest


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("$") and NAME.fullmatch(value[1:]):
        yield value[1:]
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _named(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _named(item)


def _builtin(value: Any) -> Any:
    return None if value is msgspec.NODEFAULT else msgspec.to_builtins(value)
