"""A lineage as text: an indented tree for terminals, a Mermaid flowchart for documents."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lakehouse.catalog.lineage.graph import Edge, Lineage, Node

_SHOWN = 8  # sources of one kind that one table shows; the rest are counted
_SHAPES = {
    "table": ('[("', '")]'),
    "view": ('[["', '"]]'),
    "file": ('(["', '"])'),
    "frame": ('(["', '"])'),
    "notebook": ('{{"', '"}}'),
    "script": ('{{"', '"}}'),
}
_PATHS = ("file", "notebook", "script")
_PLAIN = re.compile(r"[^\w .,/-]")


def folded(lineage: Lineage) -> tuple[list[Node], list[Edge]]:
    """Nodes and edges to draw: of many alike ends at one table the newest few, and one node that counts the rest."""
    near: dict[str, list[Edge]] = defaultdict(list)
    for edge in lineage.edges:
        near[edge.source].append(edge)
        near[edge.target].append(edge)
    alike: dict[tuple[str, str, bool], list[Node]] = defaultdict(list)
    for node in lineage.nodes:
        others = {(edge.target if edge.source == node.id else edge.source) for edge in near[node.id]}
        if len(others) == 1 and node.id != lineage.root.id and node.id not in others:
            up = near[node.id][0].source == node.id
            alike[others.pop(), node.kind, up].append(node)
    gone: dict[str, str] = {}
    made: list[Node] = []
    for (other, kind, up), group in alike.items():
        if len(group) > _SHOWN:
            group.sort(key=lambda node: max(edge.snapshot for edge in near[node.id]), reverse=True)
            rest = group[_SHOWN - 1 :]
            together = f"{other}:{kind}:{up}:rest"
            kinds = {"query": "queries"}.get(kind, f"{kind}s")
            made.append(replace(rest[0], id=together, name=f"{len(rest):,} more {kinds}", sha256=None, sql=None))
            gone |= {node.id: together for node in rest}
    edges: dict[tuple[str, str, str], Edge] = {}
    for edge in lineage.edges:
        source, target = gone.get(edge.source, edge.source), gone.get(edge.target, edge.target)
        known = edges.get((source, target, edge.operation))
        snapshots = tuple(sorted({*edge.snapshots, *(known.snapshots if known else ())}))
        ways = edge.ways | (known.ways if known else frozenset())
        edges[source, target, edge.operation] = replace(
            edge, source=source, target=target, snapshots=snapshots, ways=ways
        )
    counts = set(gone.values())  # what only counts comes last
    drawn = sorted(edges.values(), key=lambda edge: edge.source in counts or edge.target in counts)
    return [*(node for node in lineage.nodes if node.id not in gone), *made], drawn


def title(node: Node) -> str:
    """What a node is called in a drawing: of a path its last part, on one line."""
    name = node.name.rstrip("/\\")
    if node.kind in _PATHS and "more " not in name:
        name = re.split(r"[/\\]", name)[-1] or node.name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def subtitle(node: Node) -> str:
    """What kind of thing a node is, and what tells it from others of its name."""
    parts = [{"query": "SQL", "unknown": "not known from what"}.get(node.kind, node.kind)]
    if node.sha256:
        parts.append(node.sha256[:8])
    if node.dropped:
        parts.append("dropped")
    if node.snapshots and node.kind == "table":
        first, last = node.snapshots[0], node.snapshots[-1]
        parts.append(f"read at {last}" if first == last else f"read at {first} to {last}")
    return ", ".join(parts)


def caption(edge: Edge) -> str:
    """What was done, and at which snapshots."""
    first, last, count = edge.snapshots[0], edge.snapshots[-1], len(edge.snapshots)
    if edge.operation == "view":
        return "view"
    if count == 1:
        return f"{edge.operation}, snapshot {last}"
    return f"{edge.operation}, {count:,} times, snapshots {first} to {last}"


def tree(lineage: Lineage) -> str:
    """The graph as indented text; what came before is not repeated, so that circles end."""
    nodes, edges = folded(lineage)
    known = {node.id: node for node in nodes}
    root = lineage.root
    lines = [f"{title(root)} ({subtitle(root)})"]
    halves = []
    if lineage.direction != "down":
        halves.append(("made from", [(edge.target, edge.source, edge) for edge in edges if "up" in edge.ways]))
    if lineage.direction != "up":
        halves.append(("used by", [(edge.source, edge.target, edge) for edge in edges if "down" in edge.ways]))
    for number, (heading, ends) in enumerate(halves):
        steps: dict[str, dict[str, list[Edge]]] = defaultdict(lambda: defaultdict(list))
        for start, end, edge in ends:
            steps[start][end].append(edge)
        last = number == len(halves) - 1
        lines.append(f"{'└' if last else '├'}─ {heading}" + ("" if steps[root.id] else ": nothing"))
        branch = list(_branch(root.id, known, steps, {root.id}))
        lines += [f"{' ' if last else '│'}  {line}" for line in branch]
    return "\n".join(lines)


def _branch(
    start: str, known: dict[str, Node], steps: dict[str, dict[str, list[Edge]]], seen: set[str]
) -> Iterator[str]:
    """The lines below a node; without recursion, as a chain may be longer than Python's stack."""
    waiting = [(start, "", iter(list(steps[start].items())))]
    left = {start: len(steps[start])}
    while waiting:
        here, indent, children = waiting[-1]
        found = next(children, None)
        if found is None:
            waiting.pop()
            continue
        end, edges = found
        left[here] -= 1
        elbow, bar = ("├─ ", "│  ") if left[here] else ("└─ ", "   ")
        node = known[end]
        what = "; ".join(caption(edge) for edge in edges)
        again = " (itself)" if end == here else " (see above)" if end in seen and steps[end] else ""
        yield f"{indent}{elbow}{title(node)} ({subtitle(node)}) · {what}{again}"
        if end not in seen:
            seen.add(end)
            left[end] = len(steps[end])
            waiting.append((end, indent + bar, iter(list(steps[end].items()))))


def mermaid(lineage: Lineage) -> str:
    """The graph as a Mermaid flowchart; whatever a name holds, it stays text."""
    nodes, edges = folded(lineage)
    short = {node.id: f"n{number}" for number, node in enumerate(nodes)}
    lines = ["flowchart LR"]
    for node in nodes:
        left, right = _SHAPES.get(node.kind, ('["', '"]'))
        lines.append(f"    {short[node.id]}{left}{_entities(title(node))}<br/>{_entities(subtitle(node))}{right}")
    for edge in edges:
        arrow = "-.->" if edge.operation == "ran" else "-->"
        lines.append(f'    {short[edge.source]} {arrow}|"{_entities(caption(edge))}"| {short[edge.target]}')
    lines.append(f"    style {short[lineage.root.id]} stroke-width:3px")
    dashed = [short[node.id] for node in nodes if node.dropped or node.kind == "unknown"]
    if dashed:
        lines += ["    classDef gone stroke-dasharray:5 4", f"    class {','.join(dashed)} gone"]
    return "\n".join(lines) + "\n"


def _entities(text: str) -> str:
    return _PLAIN.sub(lambda match: f"#{ord(match[0])};", text)
