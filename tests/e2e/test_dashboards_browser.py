"""The dashboards as viewers see them: Debian's Chromium, no network, two viewers, light, dark and on a phone."""

import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from accessible import accessible
from conftest import CHROMIUM_FLAGS
from playwright.sync_api import sync_playwright

import lakehouse

sys.path.append(str(Path(__file__).parents[1] / "integration"))
from serving import PRIMARY, TOKENS, Server

TABLES = """
CREATE TABLE airlines AS SELECT unnest(['AA', 'HA', 'DL']) AS carrier,
    unnest(['American Airlines Inc.', '<b>Hawaiian</b>', 'Delta Air Lines Inc.']) AS name;
CREATE TABLE airports AS SELECT 'LAX' AS faa, 'Los Angeles' AS name;
CREATE TABLE flights AS SELECT 2013 AS year, 1 + n % 12 AS month, 1 + n % 28 AS day, 5 + n % 18 AS hour,
    (5 + n % 18) * 100 AS sched_dep_time, CASE WHEN n % 56 <> 24 THEN 600 END AS dep_time,
    CASE WHEN n % 56 <> 24 THEN n % 25 - 10 + 2 * (n % 12) END::DOUBLE AS dep_delay, ['AA', 'HA', 'DL', 'UA', 'B6', 'WN', 'AS'][1 + n % 7] AS carrier, n AS flight,
    ['EWR', 'JFK', 'LGA'][1 + n % 3] AS origin, ['LAX', 'HNL'][1 + n % 2] AS dest, 2475.0 AS distance,
    make_timestamp(2013, 1 + n % 12, 1 + n % 28, 5 + n % 18, 0, 0) AS time_hour FROM range(6000) t(n);
CREATE TABLE weather AS SELECT DISTINCT origin, time_hour, 10.0 AS visib, (month(time_hour) % 2)::DOUBLE AS precip,
    5.0 AS wind_speed FROM flights"""


def written(path, *cells):
    path.parent.mkdir(exist_ok=True)
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {path.stem.title()}")])
    made.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "lake"
    with lakehouse.open(path) as lake:
        for statement in TABLES.split(";"):
            lake.sql(statement)
        written(path / "dashboards" / "broken.ipynb", "1 / 0")
        written(path / "dashboards" / "moving.ipynb", "'as published'")
        written(path / "dashboards" / "hidden.ipynb", "'hidden'")
        for name in ("flights", "broken", "moving"):
            lake.dashboards.publish(name)
    written(path / "dashboards" / "moving.ipynb", "'as changed'")
    return path


@pytest.fixture(scope="module")
def server(place, tmp_path_factory):
    words = ["lakehouse.cli", "--lake", str(place), "dashboards", "--viewers=9", "--each=2"]
    started = Server(tmp_path_factory.mktemp("server"), words, TOKENS)
    yield started.ready()
    started.stop()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def shots(tmp_path):
    return Path(os.environ.get("SCREENSHOTS", tmp_path))


@contextmanager
def visit(browser, **look):
    """A page of a viewer with cookies of their own; a request that leaves this machine fails the test."""
    outside = []
    context = browser.new_context(viewport=look.pop("viewport", {"width": 1280, "height": 1000}), **look)

    def route(route):
        url = route.request.url
        if url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:")):
            route.continue_()
        else:
            outside.append(url)
            route.abort()

    context.route("**/*", route)
    try:
        yield context.new_page()
    finally:
        context.close()
    assert outside == []


def entered(page, server):
    page.goto(f"{server.url}/voila/render/flights.ipynb")
    page.get_by_label("Token").fill(PRIMARY)
    page.get_by_role("button", name="Log in").click()
    return live(page)


def live(page):
    """Wait until the widgets stand where their picture stood."""
    page.locator(".lw-board .lw-card[data-state=ready] svg").nth(3).wait_for(timeout=90_000)
    page.locator(".lh-still").wait_for(state="detached", timeout=30_000)
    page.locator(".lw-grid [aria-rowindex='3'] .lw-cell").first.wait_for(timeout=30_000)
    return page


def tile(page, name):
    return page.locator(".lw-card[data-kind=number]", has_text=name).locator(".lw-body")


def settled(page):
    page.locator(".lw-busy", has_text="Counting").wait_for(state="detached", timeout=30_000)
    assert page.locator(".lw-board .lw-card:not([data-state=ready])").count() == 0


def test_filters_act_on_every_panel_and_viewers_have_their_own(server, browser, shots):
    with visit(browser) as one, visit(browser, color_scheme="dark") as other:
        one.goto(server.url)
        accessible(one)
        one.screenshot(path=shots / "login.png")
        one.get_by_label("Token").fill("no-token-of-ours-001")
        one.get_by_role("button", name="Log in").click()
        one.get_by_role("alert").wait_for()
        accessible(one)
        entered(one, server)
        assert tile(one, "flights planned").inner_text() == "6,000"
        accessible(one)
        one.screenshot(path=shots / "flights-light.png", full_page=True)

        before = {card: one.locator(".lw-card").nth(card).inner_html() for card in range(9)}
        one.get_by_label("Newark").uncheck()
        tile(one, "flights planned").get_by_text("4,000", exact=True).wait_for(timeout=30_000)
        one.locator("summary").click()
        one.get_by_label("<b>Hawaiian</b>").uncheck()
        left = [n for n in range(6000) if n % 3 and n % 7 != 1]
        tile(one, "flights planned").get_by_text(f"{len(left):,}", exact=True).wait_for(timeout=30_000)
        one.get_by_label("Days from").fill("2013-07-01")
        one.get_by_label("Days from").blur()
        left = [n for n in left if n % 12 >= 6]
        tile(one, "flights planned").get_by_text(f"{len(left):,}", exact=True).wait_for(timeout=30_000)
        settled(one)
        one.locator(".lw-grid .lw-count", has_text=f"{len(left):,} rows").wait_for(timeout=30_000)
        same = [card for card in range(8) if one.locator(".lw-card").nth(card).inner_html() == before[card]]
        assert same == []
        assert one.locator("summary").inner_text() == "6 of 7"

        # What a filter cannot have is told, and the page shows again what is in force.
        one.get_by_label("Planned to leave at from").fill("99")
        one.get_by_label("Planned to leave at from").blur()
        one.get_by_role("alert").get_by_text("two numbers from 0 to 23").wait_for()
        assert one.get_by_label("Planned to leave at from").input_value() == "0"
        assert tile(one, "flights planned").inner_text() == f"{len(left):,}"

        # Nothing is left: every panel says so.
        one.locator("summary").click()
        one.get_by_label("None of Airlines").click()
        one.locator(".lw-card[data-state=empty]").nth(7).wait_for(timeout=30_000)
        accessible(one)
        one.screenshot(path=shots / "flights-empty.png", full_page=True)

        # Another viewer's page is as it was at first.
        entered(other, server)
        assert tile(other, "flights planned").inner_text() == "6,000"
        assert other.get_by_label("Newark").is_checked()
        assert one.locator(".lw-card[data-state=empty]").count() == 8
        accessible(other)
        other.screenshot(path=shots / "flights-dark.png", full_page=True)
        other.set_viewport_size({"width": 390, "height": 844})
        other.emulate_media(color_scheme="light")
        accessible(other)
        other.screenshot(path=shots / "flights-phone.png", full_page=True)
        assert other.evaluate("document.documentElement.scrollWidth") <= 390


def test_without_scripts_the_page_shows_what_the_widgets_would(server, browser, shots):
    with visit(browser) as page:
        page.route("**/voila.js", lambda route: route.abort())
        page.goto(f"{server.url}/login")
        page.get_by_label("Token").fill(PRIMARY)
        page.get_by_role("button", name="Log in").click()
        page.goto(f"{server.url}/voila/render/flights.ipynb", timeout=90_000)
        still = page.locator(".lh-still")
        assert tile(still, "flights planned").inner_text() == "6,000"
        assert still.locator("svg").count() == 4
        assert still.locator("summary").inner_text() == "all 7"
        assert still.get_by_role("checkbox", name="Newark", include_hidden=True).is_disabled()
        page.screenshot(path=shots / "flights-still.png", full_page=True)


def test_what_is_refused_says_so(server, browser, shots):
    with visit(browser) as page:
        page.goto(f"{server.url}/login")
        page.get_by_label("Token").fill(PRIMARY)
        page.get_by_role("button", name="Log in").click()
        cards = page.locator(".cards b")
        assert sorted(cards.all_inner_texts()) == ["Broken", "Flights from New York, 2013"]
        accessible(page)
        page.screenshot(path=shots / "index.png")
        for name, said in (
            ("hidden", "is not published"),
            ("moving", "was changed since"),
            ("nothing", "not published"),
        ):
            answer = page.goto(f"{server.url}/voila/render/{name}.ipynb")
            assert answer.status == 404
            page.get_by_text(said).wait_for()
        accessible(page)
        page.screenshot(path=shots / "refused.png")

        # A dashboard whose notebook fails: a sentence, no traceback.
        page.goto(f"{server.url}/voila/render/broken.ipynb", timeout=60_000)
        page.get_by_text("error when executing").wait_for(timeout=60_000)
        assert "ZeroDivisionError" not in page.content()
        accessible(page)
        page.screenshot(path=shots / "broken.png")
        second = page.context.new_page()
        assert second.goto(f"{server.url}/voila/render/broken.ipynb", timeout=60_000).status == 200
        third = page.context.new_page()
        assert third.goto(f"{server.url}/voila/render/broken.ipynb").status == 503
        third.get_by_text("You have 2 pages open").wait_for()
        accessible(third)
        third.screenshot(path=shots / "full.png")
        second.goto("about:blank")  # a page that is left gives its place back
        third.wait_for_timeout(200)
        assert third.reload(timeout=60_000).status == 200


def test_a_report_needs_nothing_from_outside(place, browser, shots, tmp_path):
    with lakehouse.open(place) as lake:
        run = lake.reports.run("table_quality", {"table": "flights"})
        html = tmp_path / "report.html"
        html.write_bytes(lake.storage.get(run.artefacts["html"]))
    for name, look in (("light", {}), ("phone", {"viewport": {"width": 390, "height": 844}})):
        with visit(browser, **look) as page:
            page.goto(html.as_uri())
            accessible(page)
            page.screenshot(path=shots / f"report-{name}.png", full_page=True)
