"""Reports executed for real: one snapshot, kept runs, failures that are marked, ends from outside."""

import json
import os
import signal
import threading
import time

import nbformat
import pytest

import lakehouse
from lakehouse.errors import LakehouseError, LakeReadOnly, ReportInvalid, RunNotFound

LOOK = """
print(lake.snapshot, lake.read_only, sorted(n for n in os.environ if 'TOKEN' in n or 'OTHER' in n))
print('the secret is', os.environ[password.removeprefix('env:')])
"""
DO = """
if what == 'fail': raise ValueError('on purpose')
if what == 'leave': sys.exit(0)
if what == 'die': os.kill(os.getpid(), 9)
if what == 'hang': print('before', flush=True); time.sleep(600)
if what == 'much': print('x' * 30_000_000)
"""
CELLS = [
    'what = "nothing"\nlabel = "<script>alert(1)</script>"\npassword = "env:PROBE_SECRET"',
    "import lakehouse, os, sys, time\nlake = lakehouse.open()\nlake.sql('SELECT sum(a) AS total FROM t')",
    LOOK,
    DO,
    "print('reached the end')",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A lake whose folder's name is hostile, with a report of its own."""
    folder = tmp_path_factory.mktemp("lake {0} %s") / "lake"
    with lakehouse.open(folder) as lake:
        lake.sql("CREATE TABLE t AS SELECT range AS a FROM range(10)")
    cells = [nbformat.v4.new_markdown_cell("# A probe")]
    cells += [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[1].metadata["tags"] = ["parameters"]
    probe = nbformat.v4.new_notebook(cells=cells)
    probe.metadata["lakehouse"] = nbformat.from_dict({"parameters": {"password": {"kind": "secret"}}})
    (folder / "reports").mkdir()
    nbformat.write(probe, folder / "reports" / "probe.ipynb")
    return folder


@pytest.fixture
def lake(place, monkeypatch):
    monkeypatch.setenv("PROBE_SECRET", "hunter2-very-secret")
    monkeypatch.setenv("AUTH_TOKEN", "token-of-the-server")
    monkeypatch.setenv("JUPYTER_TOKEN", "token-of-jupyter")
    monkeypatch.setenv("OTHER_THING", "not for reports")
    with lakehouse.open(place, settings={"reports": {"max_output_bytes": 1_000_000}}) as opened:
        yield opened


def notebook(lake, run):
    return nbformat.reads(lake.storage.get(run.artefacts["notebook"]).decode(), as_version=4)


def printed(lake, run):
    return "".join(o.get("text", "") for c in notebook(lake, run).cells for o in c.get("outputs", []))


def html(lake, run):
    return lake.storage.get(run.artefacts["html"]).decode()


def test_a_run_reads_one_snapshot_and_is_given_again(lake):
    steps = []
    first = lake.reports.run("probe", told=steps.append)
    assert (first.status, first.error, first.reused) == ("ok", None, False)
    assert first.snapshot == lake.catalog.current_snapshot().id
    assert f"{first.snapshot} True []" in printed(lake, first)
    assert [step.cell for step in steps if step.status == "running"] == list(range(len(CELLS) + 3))
    page = html(lake, first)
    assert ">45<" in page
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    again = lake.reports.run("probe", told=steps.append)
    assert (again.id, again.reused) == (first.id, True)

    lake.sql("INSERT INTO t VALUES (100)")
    newer = lake.reports.run("probe")
    assert newer.snapshot > first.snapshot
    assert ">145<" in html(lake, newer)
    older = lake.reports.run("probe", at=first.snapshot, force=True)
    assert older.id != first.id
    assert ">45<" in html(lake, older)
    assert lake.reports.compare(first.id, older.id).outputs == []
    found = lake.reports.compare(first.id, newer.id)
    assert (found.snapshot.before, found.snapshot.after) == (first.snapshot, newer.snapshot)
    table = next(one for one in found.outputs if one.kind == "table")
    assert (table.removed, table.added) == (["45"], ["145"])
    assert [run.id for run in lake.reports.runs("probe")][:3] == [older.id, newer.id, first.id]


def test_a_secret_is_in_no_artefact(lake):
    run = lake.reports.run("probe")
    assert "the secret is ***" in printed(lake, run)
    kept = [lake.storage.get(info.key) for info in lake.storage.list("reports/")]
    assert not any(b"hunter2" in content for content in kept)
    with pytest.raises(ReportInvalid, match="NOT_SET"):
        lake.reports.run("probe", {"password": "env:NOT_SET"})


def test_markup_in_a_value_is_text(lake):
    run = lake.reports.run("probe", {"label": "<script>alert(2)</script>"})
    assert "<script>alert" not in html(lake, run)
    assert "&lt;script&gt;alert(2)" in html(lake, run)


@pytest.mark.parametrize(
    ("what", "type", "says"),
    [
        ("fail", "ValueError", "on purpose"),
        ("leave", "SystemExit", "before its end"),
        ("die", "DeadKernelError", "died"),
    ],
)
def test_a_failure_is_a_failure_and_marks_its_cell(lake, what, type, says):
    run = lake.reports.run("probe", {"what": what})
    assert (run.status, run.error.type, run.error.cell) == ("failed", type, 6)
    assert says in run.error.message
    assert "reached the end" not in printed(lake, run)
    assert "the secret is ***" in printed(lake, run)  # what came before is kept
    page = html(lake, run)
    assert 'id="stopped"' in page
    assert "cell 6" in page
    assert "not complete" in page
    again = lake.reports.run("probe", {"what": "nothing"}, at=run.snapshot)
    assert again.status == "ok"
    assert lake.reports.get(run.id).status == "failed"


def test_a_hung_cell_ends_at_the_time_limit(lake):
    for seconds in (8, 30, 120):  # until the cell that hangs is reached by then
        run = lake.reports.run("probe", {"what": "hang"}, timeout=seconds)
        if run.error.cell == 6:
            break
    assert (run.status, run.error.cell) == ("timeout", 6)
    assert not [p for p in _commands() if run.id in p]


def test_a_run_is_cancelled_from_another_process(lake, child):
    seen = threading.Event()
    ids = []

    def told(run):
        ids.append(run.id)
        if run.cell >= 4:
            seen.set()

    results = []
    thread = threading.Thread(
        target=lambda: results.append(lake.reports.run("probe", {"what": "hang", "label": "c"}, told=told))
    )
    thread.start()
    assert seen.wait(60)
    other = child(
        """
        import lakehouse
        lake = lakehouse.open(args[0], read_only=True)
        say(lake.reports.get(args[1]).status)
        say(lake.reports.cancel(args[1]))
        """,
        lake.path,
        ids[0],
    )
    assert other.end() == ["running", True]
    thread.join(30)
    assert results[0].status == "cancelled"
    assert lake.reports.cancel(ids[0]) is False


def test_what_a_cell_gives_is_cut(lake):
    run = lake.reports.run("probe", {"what": "much"})
    assert run.status == "ok"
    assert "cut here" in printed(lake, run)
    assert "reached the end" in printed(lake, run)
    assert len(lake.storage.get(run.artefacts["notebook"])) < 2_000_000


def test_two_processes_that_ask_the_same_get_one_run(lake, child):
    code = """
        import lakehouse
        lake = lakehouse.open(args[0])
        run = lake.reports.run("probe", {"label": "twice"})
        say([run.id, run.status, run.reused])
        """
    both = [child(code, lake.path) for _ in range(2)]
    said = [one.end()[0] for one in both]
    assert said[0][0] == said[1][0]
    assert {one[1] for one in said} == {"ok"}
    assert sorted(one[2] for one in said) == [False, True]


def test_a_killed_runner_leaves_an_interrupted_run(lake, child):
    other = child(
        """
        import lakehouse
        lake = lakehouse.open(args[0])
        lake.reports.run("probe", {"what": "hang", "label": "k"}, told=lambda run: say([run.id, run.cell]))
        """,
        lake.path,
    )
    id = ""
    cell = 0
    while cell < 4:
        id, cell = other.hear()
    assert lake.reports.get(id).status == "running"
    os.kill(other.pid, signal.SIGKILL)
    other.process.wait()
    deadline = time.monotonic() + 60
    while lake.reports.get(id).status == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    found = lake.reports.get(id)
    assert (found.status, found.error.type) == ("interrupted", "Interrupted")
    deadline = time.monotonic() + 60
    while (left := _working_in(lake.path / "tmp")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_a_batch_runs_all_and_lists_them(lake):
    sets = [{"label": "b1"}, {"label": "b2", "what": "fail"}]
    done = lake.reports.batch("probe", sets)
    assert [run.status for run in done.runs] == ["ok", "failed"]
    assert [run.parameters["label"] for run in done.failed] == ["b2"]
    page = lake.storage.get(done.page).decode()
    assert "1 not complete" in page
    assert f"../{done.runs[0].id}/report.html" in page
    before = len(lake.reports.runs("probe"))
    with pytest.raises(ReportInvalid, match="no parameter"):
        lake.reports.batch("probe", [{"label": "b3"}, {"nonsense": 1}])
    assert len(lake.reports.runs("probe")) == before


def test_a_run_is_kept_when_it_cannot_be_printed(lake, monkeypatch):
    monkeypatch.setattr("lakehouse.reports.page._CHROMIUM", ())
    with pytest.raises(LakehouseError, match="needs Chromium"):
        lake.reports.run("probe", {"label": "print"}, formats=("html", "pdf"))
    (kept,) = [run for run in lake.reports.runs("probe", limit=1) if run.parameters["label"] == "print"]
    assert (kept.status, sorted(kept.artefacts)) == ("ok", ["html", "notebook"])
    again = lake.reports.run("probe", {"label": "print"})
    assert (again.id, again.reused) == (kept.id, True)


def test_what_cannot_be_is_refused(lake, place):
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ReportInvalid, match="cannot end"):
            lake.reports.run("probe", timeout=seconds)
    with pytest.raises(RunNotFound):
        lake.reports.get("probe--20000101T000000000000-abcdef")
    for id in ("", "x", "../../etc--x", "probe--/x"):
        with pytest.raises(RunNotFound):
            lake.reports.get(id)
    with pytest.raises(ReportInvalid, match="format"):
        lake.reports.run("probe", formats=("docx",))
    with lakehouse.open(place, read_only=True) as reader, pytest.raises(LakeReadOnly):
        reader.reports.run("probe")


def test_the_runs_are_told_as_json(lake):
    run = lake.reports.runs("probe", limit=1)[0]
    content = json.loads(lake.storage.get(f"reports/probe/{run.id}/run.json"))
    assert content["status"] == run.status


def _working_in(folder):
    """Processes that stand in folders of reports there."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            place = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        if place.startswith(f"{folder}/report-"):
            found.append(pid)
    return found


def _commands():
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                found.append(file.read().decode(errors="replace"))
        except OSError:
            continue
    return found
