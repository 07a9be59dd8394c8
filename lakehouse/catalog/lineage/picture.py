"""A lineage as an SVG picture: layers from left to right, drawn here so that it needs nothing from elsewhere.

The steps are the usual ones of layered drawing (Sugiyama): leave out the edges that close a circle, put every node one
layer after the last that it comes from, order the layers so that few edges cross, then place and draw.
"""

from __future__ import annotations

import html
import unicodedata
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from lakehouse.catalog.lineage.drawing import caption, folded, subtitle, title

if TYPE_CHECKING:
    from lakehouse.catalog.lineage.graph import Edge, Lineage, Node

_HEIGHT, _ROW, _MARGIN = 44, 64, 16
_LONGEST = 34  # characters of a name; the whole of it shows when the pointer rests on the box
_SWEEPS = 8
_COLORS = {  # fill, border
    "table": ("#e8f0fe", "#3b6fd4"),
    "view": ("#e6f6f3", "#1d8a78"),
    "file": ("#fdf3dc", "#b7860b"),
    "frame": ("#fdf3dc", "#b7860b"),
    "notebook": ("#f3e8fd", "#8449c0"),
    "script": ("#f3e8fd", "#8449c0"),
    "unknown": ("#fdeaea", "#c0392b"),
    "sql": ("#e8f0fe", "#3b6fd4"),
    "ingest": ("#fdf3dc", "#b7860b"),
    "python": ("#f3e8fd", "#8449c0"),
    "done": ("#e6f6ea", "#2b8a3e"),
    "skipped": ("#e6f6f3", "#1d8a78"),
    "failed": ("#fdeaea", "#c0392b"),
    "timeout": ("#fdeaea", "#c0392b"),
    "interrupted": ("#fdeaea", "#c0392b"),
}  # of nodes of a lineage, of modes of a workflow, and of what came of them
_OTHER = ("#f1f3f5", "#6c757d")
_UNTOLD = ("ran", "then")  # the broken line, and the line, say it
_BACK = 18  # between the ways of edges that go back to an earlier layer, below everything else
_Layers = list[list[str]]
_Ends = tuple[str, str]
_Routes = dict[_Ends, list[str]]
_Places = dict[str, tuple[float, float]]


def svg(lineage: Lineage, about: str | None = None) -> str:
    """The picture; `about` is what it is called for who cannot see it."""
    nodes, edges = folded(lineage)
    known = {node.id: node for node in nodes}
    layers, routes, closing = _layers(nodes, edges)
    _order(layers, [pair for route in routes.values() for pair in pairwise(route)])
    widths = {id: _width(node) for id, node in known.items()}
    places, width, height = _place(layers, widths, _gaps(layers, edges))
    back = {ends: height + _BACK * number for number, ends in enumerate(e for e in closing if e[0] != e[1])}
    height += _BACK * len(back)
    labels: dict[_Ends, list[str]] = defaultdict(list)
    for edge in edges:
        if edge.operation not in _UNTOLD:
            labels[edge.source, edge.target].append(caption(edge))
    about = _text(about or f"Lineage of {title(lineage.root)}")
    solid = {(edge.source, edge.target) for edge in edges if edge.operation != "ran"}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"',
        f' font-family="system-ui, -apple-system, sans-serif" font-size="12" role="img" aria-label="{about}">',
        '<defs><marker id="lineage-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"',
        ' orient="auto"><path d="M0 0L8 4L0 8z" fill="#868e96"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for ends in [*routes, *closing]:
        route = routes.get(ends, list(ends))
        path, at = _path(route, places, widths, back.get(ends))
        dash = "" if ends in solid else ' stroke-dasharray="4 3"'
        parts.append(
            f'<path d="{path}" fill="none" stroke="#868e96" stroke-width="1.3"{dash} marker-end="url(#lineage-arrow)"/>'
        )
        if labels[ends]:
            parts.append(_label(*at, labels[ends]))
    parts += [_box(node, *places[node.id], widths[node.id], root=node.id == lineage.root.id) for node in nodes]
    return "\n".join([*parts, "</svg>"])


def _layers(nodes: list[Node], edges: list[Edge]) -> tuple[_Layers, _Routes, list[_Ends]]:
    """The nodes by layer, of each edge the way it takes (a bend in every layer that it passes), and what goes back."""
    forward, closing = _acyclic(nodes, edges)
    depth = {node.id: 0 for node in nodes}
    sources: dict[str, set[str]] = defaultdict(set)
    targets: dict[str, set[str]] = defaultdict(set)
    for source, target in forward:
        sources[target].add(source)
        targets[source].add(target)
    left = {node.id: len(sources[node.id]) for node in nodes}
    ready = [id for id, count in left.items() if count == 0]
    order = []
    while ready:
        here = ready.pop()
        order.append(here)
        for target in sorted(targets[here]):
            depth[target] = max(depth[target], depth[here] + 1)
            left[target] -= 1
            if left[target] == 0:
                ready.append(target)
    for here in reversed(order):  # what nothing comes before stands right beside what it went into
        if targets[here] and not sources[here]:
            depth[here] = min(depth[target] for target in targets[here]) - 1
    layers: _Layers = [[] for _ in range(max(depth.values()) + 1)]
    for node in nodes:
        layers[depth[node.id]].append(node.id)
    routes: _Routes = {}
    for source, target in forward:
        route = [source]
        for level in range(depth[source] + 1, depth[target]):
            bend = f"bend {len(routes)} {level}"
            layers[level].append(bend)
            route.append(bend)
        routes[source, target] = [*route, target]
    return layers, routes, closing


def _acyclic(nodes: list[Node], edges: list[Edge]) -> tuple[list[_Ends], list[_Ends]]:
    """The pairs that edges join, apart from those that close a circle, and those."""
    targets: dict[str, dict[str, None]] = defaultdict(dict)
    for edge in edges:
        targets[edge.source][edge.target] = None
    forward, closing = [], []
    state: dict[str, int] = {}  # 1: on the way, 2: done
    for node in nodes:
        if node.id in state:
            continue
        state[node.id] = 1
        waiting = [(node.id, iter(list(targets[node.id])))]
        while waiting:
            here, ends = waiting[-1]
            end = next(ends, None)
            if end is None:
                state[here] = 2
                waiting.pop()
            elif state.get(end) == 1:
                closing.append((here, end))
            else:
                forward.append((here, end))
                if end not in state:
                    state[end] = 1
                    waiting.append((end, iter(list(targets[end]))))
    return forward, closing


def _order(layers: _Layers, pairs: list[_Ends]) -> None:
    """Sort each layer by the middle of what its nodes are joined to, to and fro."""
    before, after = defaultdict(list), defaultdict(list)
    for a, b in pairs:
        before[b].append(a)
        after[a].append(b)
    for sweep in range(_SWEEPS):
        near = after if sweep % 2 else before
        for layer in reversed(layers) if sweep % 2 else layers:
            at = {id: number for every in layers for number, id in enumerate(every)}
            middle = {id: sum(at[n] for n in near[id]) / len(near[id]) if near[id] else at[id] for id in layer}
            layer.sort(key=lambda id: middle[id])


def _gaps(layers: _Layers, edges: list[Edge]) -> list[int]:
    """The room between each layer and the next: as much as the longest caption of an edge that begins there."""
    level = {id: number for number, layer in enumerate(layers) for id in layer}
    gaps = [40] * len(layers)
    for edge in edges:
        if level[edge.target] > level[edge.source]:
            here = level[edge.target] - 1
            told = "" if edge.operation in _UNTOLD else caption(edge)
            gaps[here] = max(gaps[here], round(_length(told) * 5.6) + 36)
    return gaps


def _place(layers: _Layers, widths: dict[str, int], gaps: list[int]) -> tuple[_Places, int, int]:
    """Left edge and middle of every node and bend, and the size of it all."""
    tallest = max(len(layer) for layer in layers)
    places: _Places = {}
    left = _MARGIN
    for layer, gap in zip(layers, gaps, strict=True):
        top = _MARGIN + (tallest - len(layer)) * _ROW / 2
        for number, id in enumerate(layer):
            places[id] = (left, top + number * _ROW + _ROW / 2)
        left += max(widths.get(id, 0) for id in layer) + gap
    return places, left - gaps[-1] + _MARGIN + 24, tallest * _ROW + 2 * _MARGIN


def _path(
    route: list[str], places: _Places, widths: dict[str, int], low: float | None
) -> tuple[str, tuple[float, float]]:
    """The line of an edge, and where its caption stands: on the last stretch.

    Args:
        route: where it begins, its bends, where it ends.
        places: left edge and middle of each.
        widths: those of the boxes; a bend has none.
        low: how far down it goes around, if it goes back to an earlier layer.
    """
    (x, y), (end, bottom) = places[route[0]], places[route[-1]]
    right = x + widths[route[0]]
    if route[0] == route[-1]:  # a table made from itself
        top = y - _HEIGHT / 2
        line = f"M{right - 40:g} {top:g}C{right - 40:g} {top - 22:g} {right - 10:g} {top - 22:g} {right - 10:g} {top:g}"
        return line, (right - 25, top - 20)
    if low is not None:
        return (
            f"M{right:g} {y + 8:g}C{right + 36:g} {y + 8:g} {right + 36:g} {low:g} {right:g} {low:g}"
            f"H{end:g}C{end - 36:g} {low:g} {end - 36:g} {bottom + 8:g} {end:g} {bottom + 8:g}"
        ), ((right + end) / 2, low - 3)
    line = f"M{right:g} {y:g}"
    for id in route[1:]:
        (to, level), half = places[id], (places[id][0] - right) / 2
        line += f"C{right + half:g} {y:g} {to - half:g} {level:g} {to:g} {level:g}"
        at = ((right + to) / 2, (y + level) / 2 - 4)
        right, y = to, level
    return line, at


def _label(x: float, y: float, texts: list[str]) -> str:
    """The captions of an edge, above each other."""
    first = -12 * (len(texts) - 1)
    lines = "".join(
        f'<tspan x="{x:g}" dy="{12 if number else first}">{_text(text)}</tspan>' for number, text in enumerate(texts)
    )
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="10" fill="#495057" text-anchor="middle" stroke="#ffffff"'
        f' stroke-width="3" paint-order="stroke">{lines}</text>'
    )


def _box(node: Node, x: float, y: float, width: int, *, root: bool) -> str:
    fill, border = _COLORS.get(node.kind.partition(",")[0], _OTHER)
    top, dash = y - _HEIGHT / 2, ' stroke-dasharray="5 4"' if node.dropped or node.kind == "unknown" else ""
    corner = 4 if node.kind in ("table", "view") else 14
    whole = "\n".join(part for part in (node.name, node.sql, node.sha256) if part)
    return (
        f'<g><title>{_text(whole)}</title><rect x="{x:g}" y="{top:g}" width="{width}" height="{_HEIGHT}" rx="{corner}"'
        f' fill="{fill}" stroke="{border}" stroke-width="{2.5 if root else 1.2}"{dash}/>'
        f'<text x="{x + width / 2:g}" y="{y - 3:g}" text-anchor="middle" font-weight="600" fill="#212529">'
        f"{_text(_cut(title(node)))}</text>"
        f'<text x="{x + width / 2:g}" y="{y + 13:g}" text-anchor="middle" font-size="10" fill="#495057">'
        f"{_text(subtitle(node))}</text></g>"
    )


def _width(node: Node) -> int:
    return max(80, round(max(_length(_cut(title(node))) * 7.7, _length(subtitle(node)) * 5.6)) + 24)


def _length(text: str) -> int:
    """Characters, where those of East Asia are two wide."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST // 2] + "…" + text[-_LONGEST // 2 :]


def _text(text: str) -> str:
    """Text for XML, which knows no control characters, not even escaped."""
    kept = "".join(c if c in "\n\t" or (c.isprintable() and c not in "\ufffe\uffff") else "\ufffd" for c in text)
    return html.escape(kept.encode("utf-8", "replace").decode())
