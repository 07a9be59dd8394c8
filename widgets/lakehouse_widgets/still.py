"""A dashboard as HTML without scripts: what a page shows until the widgets are there, and where there are none."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from lakehouse_widgets.look import styled

if TYPE_CHECKING:
    from lakehouse_widgets.dashboard import Dashboard
    from lakehouse_widgets.panels import Panel

_SAID = {"loading": "Loading …", "empty": "Nothing meets the filters"}
FOLD = 6
"""More choices than this are folded away; dashboard.js has the same number."""


def still(dashboard: Dashboard) -> str:
    """The dashboard as it stands, its filters shown but not to be changed."""
    style = styled("card.css", "dashboard.css")
    controls = dashboard.controls
    title = f"<h2>{escape(controls.title)}</h2>" if controls.title else ""
    filters = "".join(_filter(one, controls.values[one["name"]]) for one in controls.filters)
    rows = "".join(f'<div class="lw-line">{"".join(map(_card, row))}</div>' for row in dashboard.rows)
    return (
        f'<style>{style}</style><div class="lw-still"><div class="lw-dashboard">{title}'
        f'<div class="lw-filters">{filters}</div></div>{rows}</div>'
    )


def _filter(one: dict[str, Any], value: Any) -> str:
    inside = _INSIDE[one["kind"]](one, value)
    return f'<fieldset class="lw-filter" disabled><legend>{escape(one["label"])}</legend>{inside}</fieldset>'


def _select(one: dict[str, Any], value: str) -> str:
    shown = dict(map(tuple, one["choices"]))[value]
    widest = max((text for _, text in one["choices"]), key=len)  # as wide as it will be
    return f"<select><option selected>{escape(shown)}</option><option>{escape(widest)}</option></select>"


def _several(one: dict[str, Any], value: list[str]) -> str:
    if len(one["choices"]) > FOLD:
        several = f"{len(value)} of {len(one['choices'])}"
        return f"<details><summary>{f'all {len(value)}' if len(value) == len(one['choices']) else several}</summary></details>"
    boxes = (
        f'<label class="lw-choice"><input type="checkbox"{" checked" * (choice in value)}><span>{escape(text)}</span></label>'
        for choice, text in one["choices"]
    )
    return f'<div class="lw-choices">{"".join(boxes)}</div>'


def _between(one: dict[str, Any], value: list[Any]) -> str:
    kind = "date" if one["kind"] == "dates" else "number"
    low, high = (f'<input type="{kind}" value="{escape(str(end))}">' for end in value)
    unit = f'<span class="lw-unit">{escape(one["unit"])}</span>' if one.get("unit") else ""
    return f'{low}<span class="lw-dash">–</span>{high}{unit}'


_INSIDE = {"select": _select, "multiselect": _several, "dates": _between, "numbers": _between}


def _card(panel: Panel) -> str:
    card = panel.card
    name = f'<div class="lw-name">{escape(card.name)}</div>' if card.name != card.title else ""
    said = card.text if card.state == "error" else _SAID.get(card.state)
    body = f'<span class="lw-said">{escape(said)}</span>' if said else card.svg or escape(card.text)
    below = f'<div style="height:{panel.below}px"></div>' if panel.below else ""
    return (
        f'<div style="flex:1 1 {panel.basis}px;min-width:0"><div class="lw-card" data-kind="{card.kind}" '
        f'data-state="{card.state}">{name}<div class="lw-title">{escape(card.title)}</div>'
        f'<div class="lw-body">{body}</div></div>{below}</div>'
    )
