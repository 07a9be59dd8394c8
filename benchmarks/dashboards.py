"""The dashboard of flights in a browser: click to painted, beside stock Voila; and twenty viewers at once."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from _report import ROOT, Report, main, median, scratch
from playwright.sync_api import Browser, sync_playwright

import lakehouse
from lakehouse import demo

NAME = "flights"
DRAWN = ".lw-card[data-state=ready] svg"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PATIENCE = 120.0  # seconds


def measure(quick: bool) -> Report:
    """Seconds from the click on a link until all four charts stand there, with and without a kernel that is ready."""
    visits, many = (1, 4) if quick else (3, 20)
    with scratch() as folder, sync_playwright() as playwright:
        lake = folder / "lake"
        with lakehouse.open(lake) as opened:
            demo.load(opened, lambda _: None)
            opened.dashboards.publish(NAME)
        stock = folder / "stock"
        stock.mkdir()
        shutil.copy(ROOT / "notebooks" / "dashboards" / f"{NAME}.ipynb", stock)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        with server(folder, lake, ["voila", "--no-browser", str(stock)]) as (url, _):
            theirs = [clicked(browser, url, "voila/render/", None)[0] for _ in range(visits)]
        words = ["lakehouse.cli", "--lake", str(lake), "dashboards", f"--viewers={many}", f"--each={many}"]
        with server(folder, lake, words) as (url, process):
            cold, warm, live = [], [], []
            for _ in range(visits):
                cold.append(clicked(browser, url, "", None)[0])
                settled(process.pid)
                seconds, acting = clicked(browser, url, "", None)
                warm.append(seconds)
                live.append(acting)
            again = browser.new_context()
            clicked(browser, url, "", again)
            settled(process.pid)
            kept = clicked(browser, url, "", again)[0]
            again.close()
        browser.close()
        with server(folder, lake, words) as (url, process):
            settled(process.pid)
            crowd, memory = crowded(url, process.pid, many)
    report = Report("The dashboard of flights, from the click to its four charts", "stock Voila on the same notebook")
    report.add("a kernel is ready, a browser's first visit", median(warm), "s", median(theirs))
    report.add("the same, alone", median(warm), "s", at_most=1.5)
    report.add("until its filters act", median(live), "s", median(theirs))
    report.add("a kernel is ready, a later visit", kept, "s", median(theirs))
    report.add("no kernel is ready yet", median(cold), "s", median(theirs))
    report.add(f"{many} viewers at once on {os.cpu_count()} cores: the middle one", median(crowd), "s")
    report.add(f"{many} viewers at once: the last one", max(crowd), "s")
    report.add("memory of a viewer's kernel (shared pages in part)", memory, "MB")
    report.notes.append(
        f"{many} viewers: the page with its data, without a browser's work; {len(crowd)} of {many} came."
    )
    report.notes.append("Stock Voila is as it comes: no kernel is kept ready, its page asks CDNs for two style sheets.")
    return report


@contextmanager
def server(folder: Path, lake: Path, words: list[str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server of its own session, on a free port, until it answers; its children end with it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LAKEHOUSE_", "AUTH_", "JUPYTER"))}
    home = {"HOME": str(folder), "JUPYTER_CONFIG_DIR": str(folder / "none"), "LAKEHOUSE_PATH": str(lake)}
    home |= {"JUPYTER_NO_CONFIG": "1"}  # nothing of what we install for Voila
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", words[0], f"--port={port}", *words[1:]]
            if words[0] == "voila"
            else [sys.executable, "-m", *words, f"--port={port}"],
            env={**clean, **home, "LAKEHOUSE_READ_ONLY": "1"},
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    url = f"http://127.0.0.1:{port}/"
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def clicked(browser: Browser, url: str, path: str, context: object) -> tuple[float, float]:
    """Seconds from a click on the dashboard's link until its charts are painted, and until the filters act.

    Requests that leave this machine are refused at once, so that stock Voila does not wait for its CDNs.
    """
    own = context or browser.new_context()
    page = own.new_page()
    page.route(re.compile("^https?://(?!127.0.0.1)"), lambda route: route.abort())
    if path:  # the list of stock Voila opens its pages elsewhere; a page of one link is the same for both
        page.goto(url)
        page.set_content(f'<a href="{url}{path}{NAME}.ipynb">Flights</a>')
    else:
        page.goto(url)
    started = time.perf_counter()
    page.get_by_role("link", name="Flights").click(no_wait_after=True)
    page.locator(DRAWN).nth(3).wait_for(timeout=PATIENCE * 1000)
    painted = time.perf_counter() - started
    page.locator(f".lw-board {DRAWN}").nth(3).wait_for(timeout=PATIENCE * 1000)
    acting = time.perf_counter() - started
    page.goto("about:blank")
    page.close()
    if context is None:
        own.close()
    return painted, acting


def kernels(server_id: int) -> list[int]:
    """The processes that a server has started."""
    found = Path(f"/proc/{server_id}/task/{server_id}/children").read_text("utf-8").split()
    return [int(one) for one in found]


def settled(server_id: int) -> None:
    """Wait until nothing that the server has started works any more: its kernels are ready."""
    still, before, end = 0, -1, time.monotonic() + PATIENCE
    while still < 4 and time.monotonic() < end:
        time.sleep(0.5)
        now = sum(used(one) for one in kernels(server_id))
        still = still + 1 if abs(now - before) <= 2 and kernels(server_id) else 0
        before = now


def used(process_id: int) -> int:
    """Ticks of the processor that a process has had."""
    try:
        parts = Path(f"/proc/{process_id}/stat").read_text("utf-8").rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return int(parts[11]) + int(parts[12])


def crowded(url: str, server_id: int, many: int) -> tuple[list[float], float]:
    """Seconds until each of many viewers has the whole page with its data; and MB of a kernel, in the middle."""
    gate = threading.Barrier(many)

    def one(_: int) -> float:
        gate.wait()
        started = time.perf_counter()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(f"{url}voila/render/{NAME}.ipynb", timeout=PATIENCE * 2) as answer:
            content = answer.read()
        assert content.count(b"<svg") >= 4, content[-500:]
        return time.perf_counter() - started

    with ThreadPoolExecutor(many) as pool:
        seconds = list(pool.map(one, range(many)))
    sizes = []
    for kernel in kernels(server_id):
        found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{kernel}/smaps_rollup").read_text("utf-8"), re.MULTILINE)
        sizes.append(int(found[1]) / 1000 if found else 0.0)
    return seconds, median(sizes)


if __name__ == "__main__":
    main(measure)
