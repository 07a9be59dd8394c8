"""Where the rows of a table came from, and what was made from them.

The answer is a graph: what each commit noted (or, for older commits, a parse of its SQL) gives the edges. Tables are
known by DuckLake's id, so that a rename changes nothing, and a table that was dropped and made again is another one.
Time counts: only what had gone into a table when it was read belongs to what was made from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from lakehouse.catalog.lineage import reads
from lakehouse.catalog.lineage.commits import Commit, Names, Row, Step, commits, key, pairs
from lakehouse.catalog.lineage.recording import UNKNOWN, Read, Resolver, headline
from lakehouse.catalog.names import shown
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.catalog.catalog import Catalog
    from lakehouse.catalog.metadata import Relation

Direction = Literal["up", "down", "both"]
Columns = dict[str, tuple[tuple[str, str], ...] | None]


@dataclass(frozen=True, slots=True)
class Node:
    """A table, or something that rows came from."""

    id: str
    kind: str
    """`table`, `view`, `file`, `frame`, `function`, `notebook`, `script`, `query` (SQL that read no table), or
    `unknown`: rows were written, and it is not known from what."""
    name: str
    """What a table is called now, or was called last."""
    snapshots: tuple[int, ...] = ()
    """The snapshots at which it was read, sorted."""
    sha256: str | None = None
    """Of a file or frame: the hash of its content; None when it was not taken."""
    dropped: bool = False
    sql: str | None = None
    """Of a view: its query."""
    table_id: int | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """Rows of `target` were made from `source`."""

    source: str
    target: str
    operation: str
    """`ingest`, `create`, `insert`, `update`, `delete`, `merge`, `copy`, `view`, `ran` (a notebook or script) …"""
    snapshots: tuple[int, ...]
    """The commits that did so, oldest first; of a view: the one that made it."""
    sql: str | None = None
    """The statement of the newest of them."""
    ways: frozenset[str] = frozenset()
    """`up`: the root came from it; `down`: it came from the root; in a circle both."""

    @property
    def snapshot(self) -> int:
        """The newest of the commits."""
        return self.snapshots[-1]


@dataclass(frozen=True)
class Lineage:
    """The answer of `Table.lineage()`; shows itself as a picture in a notebook and as a tree in a terminal."""

    root: Node
    nodes: tuple[Node, ...]
    """The root first, then by distance from it."""
    edges: tuple[Edge, ...]
    direction: Direction
    depth: int | None
    snapshot: int
    """The snapshot up to which commits were looked at."""
    _find_columns: Callable[[], Columns] = field(repr=False, compare=False, default=dict)

    @cached_property
    def columns(self) -> Columns:
        """Of each column of the table the columns it was computed from, as (table, column); None: not known."""
        return self._find_columns()

    @property
    def complete(self) -> bool:
        """Whether of all rows it is known what they were made from."""
        return not any(node.kind == UNKNOWN for node in self.nodes)

    def upstream(self) -> list[Node]:
        """What the table was made from, directly or not, nearest first."""
        return self._reached("up", lambda edge: (edge.target, edge.source))

    def downstream(self) -> list[Node]:
        """What was made from the table, directly or not, nearest first."""
        return self._reached("down", lambda edge: (edge.source, edge.target))

    def tree(self) -> str:
        """The graph as indented text."""
        from lakehouse.catalog.lineage import drawing

        return drawing.tree(self)

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        from lakehouse.catalog.lineage import drawing

        return drawing.mermaid(self)

    def svg(self) -> str:
        """The graph as an SVG picture that needs nothing from elsewhere."""
        from lakehouse.catalog.lineage.picture import svg

        return svg(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as values that JSON knows."""
        return {
            "root": self.root.id,
            "direction": self.direction,
            "depth": self.depth,
            "snapshot": self.snapshot,
            "complete": self.complete,
            "nodes": [asdict(node) for node in self.nodes],
            "edges": [asdict(edge) | {"snapshot": edge.snapshot, "ways": sorted(edge.ways)} for edge in self.edges],
            "columns": {name: known and [list(pair) for pair in known] for name, known in self.columns.items()},
        }

    def __repr__(self) -> str:
        return self.tree()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        # HTML rather than bare SVG: a notebook shows that also where the file is not trusted.
        picture = f'<div style="overflow-x:auto">{self.svg()}</div>'
        return {"text/plain": self.tree(), "text/html": picture, "image/svg+xml": self.svg()}

    def _repr_svg_(self) -> str:
        return self.svg()

    def _reached(self, way: str, ends: Callable[[Edge], tuple[str, str]]) -> list[Node]:
        found, waiting = {self.root.id: None}, deque([self.root.id])
        while waiting:
            here = waiting.popleft()
            for edge in self.edges:
                start, end = ends(edge)
                if way in edge.ways and start == here and end not in found:
                    found[end] = None
                    waiting.append(end)
        known = {node.id: node for node in self.nodes}
        return [known[id] for id in found if id != self.root.id]


def lineage(
    catalog: Catalog, relation: Relation, version: int, direction: Direction = "both", depth: int | None = None
) -> Lineage:
    """The lineage of a table or view up to a snapshot; see `Table.lineage`."""
    if direction not in get_args(Direction):
        raise LakehouseError(f"'{direction}' is not a direction", hint="up, down or both")
    if depth is not None and (not isinstance(depth, int) or isinstance(depth, bool) or depth < 1):
        raise LakehouseError(f"depth must be a whole number from 1, not {depth!r}", hint="None: as far as it goes")
    names = Names(catalog.metadata, version)
    graph = _Graph(names, commits(catalog, names, version), version, depth)
    last = names.last(relation.id)  # of a dropped table: the last snapshot that had it
    root = graph.table(relation.id, relation.kind, shown(relation.schema, relation.name))
    if direction != "down":
        graph.up(root, relation.id)
    if direction != "up":
        graph.down(root)

    def columns() -> Columns:
        from lakehouse.catalog.lineage.columns import columns as find

        return find(catalog, names, graph.steps_of(relation.id, version), relation, version if last is None else last)

    nodes, edges = graph.finished()
    return Lineage(graph.nodes[root], nodes, edges, direction, depth, version, columns)


class _Graph:
    """Collects nodes and edges while it walks from commit to commit."""

    def __init__(self, names: Names, found: list[Commit], version: int, depth: int | None) -> None:
        self.nodes: dict[str, Node] = {}
        self._names = names
        self._commits = found
        self._version = version
        self._depth = depth if depth is not None else 1 << 30
        self._read_at: dict[str, set[int]] = {}
        self._edges: dict[tuple[str, str, str], tuple[set[int], int, str | None]] = {}
        self._ways: dict[tuple[str, str, str], set[str]] = {}
        self._way = "up"
        self._writes: dict[int, list[Commit]] = {}
        for commit in found:
            for table in commit.written:
                self._writes.setdefault(table, []).append(commit)

    def finished(self) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
        nodes = [replace(n, snapshots=tuple(sorted(self._read_at.get(n.id, ())))) for n in self.nodes.values()]
        edges = [
            Edge(*ends, tuple(sorted(snapshots)), sql, frozenset(self._ways[ends]))
            for ends, (snapshots, _, sql) in self._edges.items()
        ]
        # A dropped view that was asked for nothing has made nothing either.
        sources = {edge.source for edge in edges}
        idle = {n.id for n in nodes[1:] if n.kind == "view" and n.dropped and n.id not in sources}
        nodes = [node for node in nodes if node.id not in idle]
        edges = [edge for edge in edges if edge.target not in idle]
        return tuple(nodes), tuple(edges)

    def steps_of(self, table: int, bound: int) -> list[tuple[Commit, Step]]:
        """What made the rows of a table up to a snapshot, oldest first, since a load last replaced them all."""
        found: list[tuple[Commit, Step]] = []
        for commit in self._writes.get(table, ()):
            if commit.id > bound:
                break
            if commit.note.operation == "ingest" and commit.note.mode == "replace":
                found.clear()
            if commit.note.operation == "rollback" and commit.note.version is not None:
                found = [(one, step) for one, step in found if one.id <= commit.note.version]
            found += [(commit, step) for step in commit.steps if table in step.targets]
        return found

    def up(self, root: str, id: int) -> None:
        """Everything that the rows came from."""
        bounds: dict[int, int] = {}
        waiting = deque([(root, id, self._version, 0)])
        while waiting:
            node, table, bound, distance = waiting.popleft()
            if distance >= self._depth or bounds.get(table, -1) >= bound:
                continue
            bounds[table] = bound
            further: dict[int, tuple[str, int, int]] = {}
            if (view := self._names.of(table, bound)) and view.kind == "view":
                for read in self._view_reads(view, bound):
                    self._add(read, node, "view", view.begin, view.sql, distance + 1, further)
            for commit, step in self.steps_of(table, bound):
                self._add_step(commit, step, table, node, distance + 1, further)
            waiting.extend((source, table, bound, far) for table, (source, bound, far) in further.items())

    def down(self, root: str) -> None:
        """Everything that was made from the rows."""
        self._way = "down"
        since: dict[str, int] = {}
        waiting = deque([(root, 0, 0)])
        while waiting:
            source, first, distance = waiting.popleft()
            if distance >= self._depth or since.get(source, self._version + 1) <= first:
                continue
            since[source] = first
            further: dict[str, int] = {}
            for target, moment, operation, snapshot, sql in self._readers(source, first):
                self._edge(source, target, operation, snapshot, sql)
                further[target] = min(moment, further.get(target, moment))
            waiting.extend((target, moment, distance + 1) for target, moment in further.items())

    def _readers(self, source: str, first: int) -> Iterator[tuple[str, int, str, int, str | None]]:
        """What read a node itself, at a snapshot or later: target, from when on that counts, operation, commit, SQL."""
        node = self.nodes[source]
        called = {row.name for row in self._names.by_id.get(node.table_id or -1, ())} or {node.name}
        written = [name.replace('"', '""').lower() for name in called]
        for view, found in self._views:
            if any(key(read) == source for read in found):
                yield self.table(view.id, "view"), first, "view", view.begin, view.sql
        for commit in self._commits:
            if commit.id < first or not commit.may_read(source, written):
                continue
            for step in commit.steps:
                for owner, read in pairs(step.reads):
                    if key(read) != source or (read.snapshot is not None and read.snapshot < first):
                        continue
                    if owner is not None:
                        yield self._source(owner), first, _INNER.get(owner.kind, "read"), step.snapshot, None
                        continue
                    for target in sorted(step.targets):
                        made = commit.created_names
                        yield (
                            self.table(target, name=made[0] if made else None),
                            commit.id,
                            step.operation,
                            step.snapshot,
                            step.sql,
                        )

    def table(self, id: int, kind: str = "table", name: str | None = None) -> str:
        """The node of a table or view by id."""
        node = f"{kind}:{id}"
        if node not in self.nodes:
            rows = self._names.by_id.get(id)
            called = rows[-1].full_name if rows else name or self._forgotten(id)
            gone = rows is None or rows[-1].end is not None
            self.nodes[node] = Node(node, kind, called, dropped=gone, sql=rows[-1].sql if rows else None, table_id=id)
        return node

    def _forgotten(self, id: int) -> str:
        """What a table was called that the catalog has forgotten, as its snapshots have expired."""
        for commit in self._commits:
            if id in commit.written and len(commit.written) == 1 and commit.created_names:
                return commit.created_names[0]
        for commit in self._commits:
            for step in commit.steps:
                for _, read in pairs(step.reads):
                    if read.id == id:
                        return read.name
        return f"table {id}"

    def _add_step(
        self, commit: Commit, step: Step, table: int, node: str, distance: int, further: dict[int, tuple[str, int, int]]
    ) -> None:
        for read in step.reads:
            self._add(read, node, step.operation, step.snapshot, step.sql, distance, further)
        if not step.reads:
            kind = UNKNOWN if step.operation == UNKNOWN else "query"
            text = headline(step.sql or commit.message or ("another program" if kind == UNKNOWN else step.operation))
            source = self._node(f"{kind}:{table}:{step.operation}", kind, text, newest=True)
            self._edge(source, node, step.operation, step.snapshot, step.sql)
        for kind, name in (("notebook", commit.note.notebook), ("script", commit.note.script)):
            if name:
                self._edge(self._node(f"{kind}:{name}", kind, name), node, "ran", step.snapshot, None)

    def _add(
        self,
        read: Read,
        target: str,
        operation: str,
        snapshot: int,
        sql: str | None,
        distance: int,
        further: dict[int, tuple[str, int, int]],
    ) -> None:
        """One thing read, what it read in turn if it is a view, and where the walk goes on."""
        source = self._source(read)
        self._edge(source, target, operation, snapshot, sql)
        if read.kind == "table" and read.id is not None:
            bound = snapshot if read.snapshot is None else read.snapshot
            if bound > further.get(read.id, ("", -1, 0))[1]:
                further[read.id] = (source, bound, distance)
        if distance < self._depth:
            for inner in read.reads:
                view = self._names.of(read.id, snapshot) if read.kind == "view" and read.id is not None else None
                made = view.begin if view else snapshot
                self._add(
                    inner,
                    source,
                    _INNER.get(read.kind, "read"),
                    made,
                    view.sql if view else None,
                    distance + 1,
                    further,
                )

    @cached_property
    def _views(self) -> list[tuple[Row, tuple[Read, ...]]]:
        """Every view as it is, or was last, and what it reads."""
        rows = [found[-1] for found in self._names.by_id.values() if found[-1].kind == "view"]
        return [(row, self._view_reads(row, self._version if row.end is None else row.end - 1)) for row in rows]

    def _view_reads(self, view: Row, snapshot: int) -> tuple[Read, ...]:
        resolver = Resolver(self._names.at_or_before, self._names.moment, self._names.macro)
        found = reads.query(view.sql or "")
        if found is None:
            return (Read(UNKNOWN, view.full_name),)
        return resolver.reads(found, snapshot)

    def _source(self, read: Read) -> str:
        found = key(read)
        if read.id is not None:
            self.table(read.id, read.kind, read.name)
        else:
            self._node(found, read.kind, read.name, sha256=read.sha256)
        if read.snapshot is not None:
            self._read_at.setdefault(found, set()).add(read.snapshot)
        return found

    def _node(self, node: str, kind: str, name: str, *, sha256: str | None = None, newest: bool = False) -> str:
        if newest or node not in self.nodes:
            self.nodes[node] = Node(node, kind, name, sha256=sha256)
        return node

    def _edge(self, source: str, target: str, operation: str, snapshot: int, sql: str | None) -> None:
        snapshots, newest, known = self._edges.get((source, target, operation), (set(), -1, None))
        snapshots.add(snapshot)
        kept = (snapshot, sql or known) if snapshot >= newest else (newest, known or sql)
        self._edges[source, target, operation] = (snapshots, *kept)
        self._ways.setdefault((source, target, operation), set()).add(self._way)


_INNER = {"view": "view"}  # an earlier result, that became a frame, `read` what it was made from
