"""Which node comes after which, and whether they can: circles, tables that nobody makes, tables that two make."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from lakehouse.catalog.names import nearest
from lakehouse.errors import LakehouseError
from lakehouse.workflow.model import Flaw, refuse

if TYPE_CHECKING:
    from lakehouse.workflow.model import Workflow
    from lakehouse.workflow.site import Site

_SHOWN = 8  # nodes of a circle


@dataclass(frozen=True)
class Plan:
    """The order of a workflow."""

    order: tuple[str, ...]
    """All nodes, each behind those that it comes after."""
    before: Mapping[str, tuple[str, ...]]
    """By node, those that it comes right after."""
    behind: Mapping[str, tuple[str, ...]]
    """By node, those that come right after it."""
    reads: Mapping[str, tuple[str, ...] | None]
    """By node, the tables that it reads; None: not known."""
    writes: Mapping[str, tuple[str, ...]]

    def downstream(self, name: str) -> Iterator[str]:
        """All that comes after a node, nearest first."""
        return _reachable(name, self.behind)

    def upstream(self, name: str) -> Iterator[str]:
        """All that a node comes after, nearest first."""
        return _reachable(name, self.before)


def plan(workflow: Workflow, site: Site) -> Plan:
    """The order of a workflow, once nothing is wrong with it.

    Raises:
        WorkflowInvalid: names every problem.
    """
    flaws: list[Flaw] = []
    for name, node in workflow.nodes.items():
        flaws += [Flaw(name, key, message) for key, message in node.problems(site)]
        flaws += [
            Flaw(name, "params", f"there is no parameter '{param}' ({nearest(param, site.params) or 'see [params]'})")
            for param in sorted(node.uses(site) - set(site.params))
        ]
    refuse(workflow.place, flaws)
    reads, writes = {}, {}
    for name, node in workflow.nodes.items():
        try:
            writes[name] = tuple(site.table(table) for table in node.writes(site))
            found = node.reads(site)
            reads[name] = None if found is None else tuple(site.table(table) for table in found)
        except LakehouseError as error:
            flaws.append(Flaw(name, None, error.message))
    refuse(workflow.place, flaws)
    before = _before(workflow, reads, writes, flaws)
    refuse(workflow.place, flaws)
    behind: dict[str, list[str]] = {name: [] for name in workflow.nodes}
    for name, sources in before.items():
        for source in sources:
            behind[source].append(name)
    order = _order(before, behind)
    if len(order) < len(before):
        circle = _circle(before, set(order))
        shown = " → ".join([*circle[:_SHOWN], *(["…"] if len(circle) > _SHOWN else []), circle[0]])
        refuse(workflow.place, [Flaw(circle[0], "after", f"the nodes run in a circle: {shown}")])
    made = Plan(tuple(order), before, {name: tuple(ends) for name, ends in behind.items()}, reads, writes)
    refuse(workflow.place, [*_missing(made, site), *_rivals(made)])
    return made


def _before(
    workflow: Workflow,
    reads: Mapping[str, tuple[str, ...] | None],
    writes: Mapping[str, tuple[str, ...]],
    flaws: list[Flaw],
) -> dict[str, tuple[str, ...]]:
    """By node, what `after` says and what makes the tables that it reads."""
    writers: dict[str, list[str]] = {}
    for name, tables in writes.items():
        for table in tables:
            writers.setdefault(table, []).append(name)
    before = {}
    for name, node in workflow.nodes.items():
        for other in node.after:
            if other == name:
                flaws.append(Flaw(name, "after", "a node cannot come after itself"))
            elif other not in workflow.nodes:
                known = nearest(other, workflow.nodes) if len(workflow.nodes) < 1000 else None
                flaws.append(Flaw(name, "after", f"there is no node {other!r:.120}{f' ({known})' if known else ''}"))
        mine = set(writes[name])
        made = [
            one for table in reads[name] or () if table not in mine for one in writers.get(table, ()) if one != name
        ]
        before[name] = tuple(dict.fromkeys([*node.after, *made]))
    return before


def _order(before: Mapping[str, tuple[str, ...]], behind: Mapping[str, list[str]]) -> list[str]:
    left = {name: len(sources) for name, sources in before.items()}
    ready = deque(name for name, count in left.items() if count == 0)
    order = []
    while ready:
        name = ready.popleft()
        order.append(name)
        for end in behind[name]:
            left[end] -= 1
            if left[end] == 0:
                ready.append(end)
    return order


def _circle(before: Mapping[str, tuple[str, ...]], done: set[str]) -> list[str]:
    """The nodes of one circle, each behind the one that it comes after: what is not done has a source that is not."""
    here = next(name for name in before if name not in done)
    way: dict[str, int] = {}
    while here not in way:
        way[here] = len(way)
        here = next(source for source in before[here] if source not in done)
    return list(way)[way[here] :][::-1]


def _reachable(name: str, edges: Mapping[str, Iterable[str]]) -> Iterator[str]:
    seen, waiting = {name}, deque([name])
    while waiting:
        for end in edges[waiting.popleft()]:
            if end not in seen:
                seen.add(end)
                waiting.append(end)
                yield end


def _missing(made: Plan, site: Site) -> Iterator[Flaw]:
    """Tables that are read, are not in the lake and made by no node before."""
    writers: dict[str, set[str]] = {}
    for name, tables in made.writes.items():
        for table in tables:
            writers.setdefault(table, set()).add(name)
    for name, read in made.reads.items():
        for table in read or ():
            if table in site.relations or writers.get(table, set()) - {name}:
                continue
            known = nearest(table, [*site.relations, *writers]) if len(writers) < 1000 else None
            yield Flaw(name, "sql", f"it reads '{table}', which is not in the lake, and no node makes it{_in(known)}")


def _rivals(made: Plan) -> Iterator[Flaw]:
    """Tables that two nodes write without one of them coming after the other."""
    writers: dict[str, list[str]] = {}
    for name in made.order:
        for table in made.writes[name]:
            writers.setdefault(table, []).append(name)
    for table, names in writers.items():
        for first, second in pairwise(names):
            if first not in set(made.upstream(second)):
                yield Flaw(
                    second, "after", f"it writes '{table}', as node '{first}' does, and neither comes after the other"
                )


def _in(text: str | None) -> str:
    return f" ({text})" if text else ""
