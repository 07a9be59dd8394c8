"""The pages around dashboards: index, login, refusals. Plain HTML, one style sheet inside, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from http.client import responses

from lakehouse.reports.dashboards import Published

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --soft: #f4f6f8; --ink: #1d2329; --dim: #5c6670; --line: #d5dade;
  --mark: #14568c; --bad: #a4262c; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --soft: #1e242a; --ink: #e4e8eb; --dim: #a0abb5;
  --line: #39424a; --mark: #7db9ee; --bad: #ff8f94; } }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; background: var(--paper); color: var(--ink); }
header { display: flex; align-items: center; justify-content: space-between; gap: 1rem; padding: .7rem 1.2rem;
  border-bottom: 1px solid var(--line); background: var(--soft); }
header a, header strong { color: var(--ink); font-weight: 600; text-decoration: none; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1.2rem 3rem; }
main.narrow { max-width: 27rem; padding-top: 12vh; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .8rem; }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); padding: 0; margin: 0;
  list-style: none; }
.cards a { display: flex; flex-direction: column; height: 100%; padding: 1rem 1.1rem; border: 1px solid var(--line);
  border-radius: 8px; background: var(--soft); color: inherit; text-decoration: none; }
.cards a:hover, .cards a:focus-visible { border-color: var(--mark); }
.cards b { color: var(--mark); font-size: 1.1rem; } .cards small { margin-top: auto; padding-top: .8rem; }
small, .dim { color: var(--dim); }
label { display: block; margin-bottom: .3rem; } input { width: 100%; font: inherit; padding: .5rem .6rem; color: inherit;
  background: var(--paper); border: 1px solid var(--dim); border-radius: 6px; }
button { font: inherit; padding: .45rem 1rem; border: 1px solid var(--mark); border-radius: 6px; cursor: pointer;
  background: var(--mark); color: var(--paper); } main button { margin-top: 1rem; width: 100%; }
header button { background: none; color: var(--mark); padding: .2rem .7rem; } header form { margin: 0; }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
.bad { color: var(--bad); } code { font-family: ui-monospace, monospace; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
"""The Content-Security-Policy of these pages."""

_SAID = {
    401: "You are not logged in",
    403: "Not allowed",
    404: "There is no such page",
    503: "There is no place for another page",
}


def _page(title: str, body: str, *, narrow: bool = False, leave: bool = False) -> str:
    out = '<form method="post" action="/logout"><button>Log out</button></form>' if leave else ""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<header><a href="/">Dashboards</a>{out}</header>'
        f'<main class="{"narrow" if narrow else "wide"}"><h1>{escape(title)}</h1>{body}</main></body></html>'
    )


def index(published: Sequence[Published], *, leave: bool) -> str:
    """The first page: a card for each dashboard.

    Args:
        published: those that are served.
        leave: offer to log out.
    """
    cards = "".join(
        f'<li><a href="/voila/render/{one.name}.ipynb"><b>{escape(one.title)}</b><span>{escape(one.description)}</span>'
        f"<small>published {one.time:%d %B %Y}</small></a></li>"
        for one in published
    )
    none = "<p>None is published. <code>lakehouse dashboards publish NAME</code> does that.</p>"
    return _page("Dashboards", f'<ul class="cards">{cards}</ul>' if cards else none, leave=leave)


def login(there: str, said: str) -> str:
    """The page that asks for a token.

    Args:
        there: where to go afterwards.
        said: why it was refused before; empty: it was not.
    """
    why = f'<p class="bad" role="alert">{escape(said)}</p>' if said else ""
    body = (
        f'{why}<form method="post" action="/login"><input type="hidden" name="next" value="{escape(there)}">'
        '<label for="token">Token</label><input id="token" name="token" type="password" required autofocus '
        'autocomplete="current-password"><button>Log in</button></form>'
        '<p class="dim">Whoever runs this lake has given it to you.</p>'
    )
    return _page("Log in to see the dashboards", body, narrow=True)


def refusal(status: int, detail: str) -> str:
    """The page of an error: what was wrong in one sentence, and no traceback."""
    title = _SAID.get(status) or (responses.get(status, "Error") if status < 500 else "This did not work")
    return _page(title, f'<p>{escape(detail)}</p><p><a href="/">All dashboards</a></p>', narrow=True)
