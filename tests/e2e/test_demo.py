"""`lakehouse demo`: what a new user sees first."""

import re
import subprocess
import sys

import lakehouse


def _demo(path):
    command = [sys.executable, "-m", "lakehouse.cli", "--lake", str(path), "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_loads_answers_and_writes_a_page_and_knows_it_the_second_time(tmp_path, page):
    said = _demo(tmp_path / "lake")
    for table, rows in {
        "airlines": "16",
        "airports": "1,458",
        "planes": "3,322",
        "weather": "26,115",
        "flights": "336,776",
    }.items():
        assert re.search(rf"{table} +{rows} rows  loaded in", said)
    for seen in ("Which airport sends its flights off latest?", "Newark Liberty Intl", "Virgin America", "Next:"):
        assert seen in said
    html = tmp_path / "lake" / "quickstart.html"
    assert str(html) in said

    again = _demo(tmp_path / "lake")
    assert again.count("already loaded") == 5
    with lakehouse.open(tmp_path / "lake") as lake:
        assert lake.catalog.table("flights").row_count == 336_776
        ingested = [s for s in lake.catalog.snapshots() if '"operation":"ingest"' in (s.note or "")]
        assert len(ingested) == 5

    page.goto(html.as_uri())
    assert page.title() == "lakehouse quickstart"
    assert page.locator("img[src^='data:image/svg']").count() == 1
    text = page.inner_text("body")
    for seen in ("a year of flights", "mean_delay_min", "3,166 rows changed"):
        assert seen in text
