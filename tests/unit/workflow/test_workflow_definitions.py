"""What a definition may be: every problem by file, node and key, before anything runs; large and hostile ones."""

import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lakehouse
from lakehouse.errors import LakehouseError, LakeReadOnly, WorkflowError, WorkflowInvalid
from lakehouse.workflow import Http, Node, Notebook, Python, Sql, Workflow, modes
from lakehouse.workflow.model import from_dict, read
from lakehouse.workflow.schedule import Schedule


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("definitions")
    with lakehouse.open(folder / "lake", settings={"workflow": {"allowed_hosts": ["api.example.com"]}}) as lake:
        lake.sql("CREATE TABLE there AS SELECT 1 AS a")
        lake.sql("CREATE VIEW seen AS SELECT a FROM there")
        yield lake, folder


@pytest.fixture
def wrong(shared):
    lake, folder = shared

    def text(nodes, head=""):
        (folder / "w.toml").write_text(
            f"{head}\n" + "\n".join(f"[nodes.{name}]\n{body}" for name, body in nodes.items())
        )
        with pytest.raises(WorkflowInvalid) as caught:
            lake.workflows.validate(folder / "w.toml")
        assert caught.value.message.startswith(str(folder / "w.toml"))
        return caught.value.message.replace(str(folder / "w.toml"), "FILE")

    return text


SQL = 'mode = "sql"\nsql = "{}"\n'


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ({"n": 'mode = "sqll"'}, "FILE, node 'n', key 'mode': there is no mode 'sqll' (did you mean sql?)"),
        ({"n": "sql = 'x'"}, "FILE, node 'n', key 'mode': it is missing"),
        ({"n": 'mode = "sql"'}, "FILE, node 'n', key 'sql': it is missing"),
        (
            {"n": SQL.format("SELECT 1") + "tabel = 'x'"},
            "FILE, node 'n', key 'tabel': there is no such key (did you mean table",
        ),
        (
            {"n": SQL.format("SELECT 1") + "table = 'x'\nretries = -1"},
            "FILE, node 'n', key 'retries': expected `int` >= 0",
        ),
        (
            {"n": SQL.format("SELECT 1") + "table = 'x'\ntimeout = 'long'"},
            "FILE, node 'n', key 'timeout': expected `float",
        ),
        ({"n": SQL.format("SELEC 1") + "table = 'x'"}, "FILE, node 'n', key 'sql': "),
        (
            {"n": SQL.format("DROP TABLE there") + "table = 'x'"},
            "FILE, node 'n', key 'sql': expected a query, not DROP",
        ),
        ({"n": SQL.format("SELECT 1; SELECT 2") + "table = 'x'"}, "FILE, node 'n', key 'sql': expected one query"),
        ({"n": SQL.format("SELECT 1")}, "FILE, node 'n', key 'table': it is missing"),
        ({"n": SQL.format("SELECT $p") + "table = 'x'"}, "FILE, node 'n', key 'params': there is no parameter 'p'"),
        ({"n": SQL.format("SELECT ?") + "table = 'x'"}, "FILE, node 'n', key 'sql': a parameter is written $name"),
        (
            {"n": SQL.format("FROM nowhere") + "table = 'x'"},
            "FILE, node 'n', key 'sql': it reads 'nowhere', which is not in the lake",
        ),
        ({"n": SQL.format("SELECT 1 AS a") + "table = 'seen'"}, "FILE, node 'n', key 'table': 'seen' is a view"),
        ({"n": SQL.format("SELECT 1 AS a") + "table = 'no.x'"}, "FILE, node 'n', key 'table': there is no schema 'no'"),
        (
            {"n": SQL.format("SELECT 1 AS a") + "table = 'a.b.c.d'"},
            "FILE, node 'n', key 'table': 'a.b.c.d' is not a table name",
        ),
        (
            {"n": SQL.format("SELECT 1") + "table = 'x'\nafter = ['m']"},
            "FILE, node 'n', key 'after': there is no node 'm'",
        ),
        (
            {"n": SQL.format("SELECT 1") + "table = 'x'\nafter = ['n']"},
            "FILE, node 'n', key 'after': a node cannot come after itself",
        ),
        (
            {"a": SQL.format("FROM tb") + "table = 'ta'", "b": SQL.format("FROM ta") + "table = 'tb'"},
            "key 'after': the nodes run in a circle: ",
        ),
        (
            {"a": SQL.format("SELECT 1 AS a") + "table = 't'", "b": SQL.format("SELECT 2 AS a") + "table = 't'"},
            "FILE, node 'b', key 'after': it writes 't', as node 'a' does",
        ),
        (
            {"n": "mode = 'ingest'\nsource = 'none.csv'\ntable = 't'"},
            "FILE, node 'n', key 'source': there is nothing at none.csv",
        ),
        (
            {"n": "mode = 'ingest'\nsource = 'package:none_such/x'\ntable = 't'"},
            "FILE, node 'n', key 'source': the package 'none_such'",
        ),
        ({"n": "mode = 'notebook'\nnotebook = 'none.ipynb'"}, "FILE, node 'n', key 'notebook': the notebook"),
        ({"n": "mode = 'python'\ncall = 'none_such:f'"}, "FILE, node 'n', key 'call': there is no module 'none_such'"),
        ({"n": "mode = 'python'\ncall = 'os.system'"}, "FILE, node 'n', key 'call': expected module:function"),
        (
            {"n": "mode = 'http'\nurl = 'https://evil.example/x'"},
            "FILE, node 'n', key 'url': the host 'evil.example' is not one of",
        ),
        ({"n": "mode = 'http'\nurl = 'file:///etc/passwd'"}, "FILE, node 'n', key 'url': expected http"),
        (
            {"n": "mode = 'http'\nurl = 'https://api.example.com@evil.example/'"},
            "FILE, node 'n', key 'url': expected http",
        ),
        ({"n": "mode = 'http'\nurl = 'http://api.example.com:22/'"}, "FILE, node 'n', key 'url': the host"),
        ({"n": "mode = 'http'\nurl = 'https://api.example.com/'\nobject = '../x'"}, "FILE, node 'n', key 'object':"),
        ({"n": "mode = 'pathway'\ntrace = 'none'"}, "FILE, node 'n', key 'trace':"),
        ({"'a b'": SQL.format("SELECT 1")}, "FILE, node 'a b': a name has letters"),
    ],
)
def test_each_problem_is_named(wrong, nodes, told):
    assert told in wrong(nodes)


def test_heads_and_all_problems_at_once(wrong):
    assert "FILE, key 'nodes': expected a table" in wrong({})
    assert "FILE, key 'nam': there is no such key" in wrong({"n": SQL.format("SELECT 1")}, "nam = 'x'")
    assert "FILE, key 'workers': expected `int` >= 1" in wrong({"n": SQL.format("SELECT 1")}, "workers = 0")
    assert "FILE: it is not valid TOML" in wrong({"n": "mode = = 1"})
    both = wrong({"a": 'mode = "x"', "b": 'mode = "y"'})
    assert "node 'a'" in both
    assert "node 'b'" in both


def test_what_is_no_file_and_what_python_made_wrongly(shared):
    lake, folder = shared
    with pytest.raises(WorkflowInvalid, match="it cannot be read"):
        lake.workflows.validate(folder / "none.toml")
    with pytest.raises(WorkflowInvalid, match="key 'retries'"):
        lake.workflows.validate(Workflow(name="w", nodes={"n": Sql(sql="SELECT 1", expect="rows", retries=-1)}))
    with lakehouse.open(lake.path, read_only=True) as reader, pytest.raises(LakeReadOnly):
        reader.workflows.run(Workflow(name="w", nodes={"n": Sql(sql="SELECT 1", expect="rows")}))


def test_a_definition_survives_being_written_down(shared):
    nodes = {
        "a": Sql(sql="SELECT $x AS x", table="t", retries=2, timeout=3.5, after=()),
        "b": Http(url="https://api.example.com/", json={"a": ["$x", 1]}, after=("a",)),
        "c": Notebook(notebook="n.ipynb", args={"x": "$x"}),
        "d": Python(call="os:getpid", inputs=()),
    }
    workflow = Workflow(name="w", nodes=nodes, params={"x": 1}, pin=True)
    assert from_dict(workflow.to_dict(), modes.known()) == workflow


def test_reading_through_views_and_cases(shared):
    lake, _ = shared
    plan = lake.workflows.validate(
        Workflow(
            name="w",
            nodes={"use": Sql(sql="SELECT * FROM SEEN", table="u"), "make": Sql(sql="SELECT 2 AS a", table="There")},
        )
    )
    assert plan.order == ("make", "use")
    assert plan.before["use"] == ("make",)


def test_ten_thousand_nodes_and_a_thousand_beside_each_other(shared):
    lake, _ = shared
    chain = {f"n{i}": Python(call="os:getpid", after=(f"n{i - 1}",) if i else ()) for i in range(10_000)}
    assert lake.workflows.validate(Workflow(name="long", nodes=chain)).order == tuple(chain)
    wide = {f"n{i}": Sql(sql=f"SELECT a + {i} AS a FROM there", table=f"t{i}") for i in range(1000)}
    wide["all"] = Sql(sql=" UNION ALL ".join(f"SELECT a FROM t{i}" for i in range(1000)), table="everything")
    plan = lake.workflows.validate(Workflow(name="wide", nodes=wide))
    assert plan.order[-1] == "all"
    assert len(plan.before["all"]) == 1000
    assert lake.workflows.graph(Workflow(name="wide", nodes=wide)).svg().count("<rect") < 30
    chain["n0"] = Python(call="os:getpid", after=("n9999",))
    with pytest.raises(WorkflowInvalid, match=r"circle: .* → …"):
        lake.workflows.validate(Workflow(name="ring", nodes=chain))


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["sql", "python", "$x", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_keys = st.sampled_from(
    ["mode", "sql", "table", "after", "call", "url", "source", "timeout", "params", "args", "notebook"]
)


@given(
    st.dictionaries(
        st.text(max_size=12) | st.sampled_from(["a", "b"]),
        st.dictionaries(_keys | st.text(max_size=5), _values, max_size=6) | _values,
        max_size=4,
    ),
    _values,
)
def test_whatever_is_given_it_is_a_workflow_or_refused(shared, nodes, head):
    lake, _ = shared
    document = {"name": "w", **(head if isinstance(head, dict) else {}), "nodes": nodes}
    try:
        lake.workflows.validate(document)
    except LakehouseError:
        pass  # any other exception is a traceback for whoever wrote it


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_an_order_is_one_and_a_circle_is_found(shared, edges):
    lake, _ = shared
    after = {i: tuple({f"n{a}" for a, b in edges if b == i and a != b}) for i in range(8)}
    workflow = Workflow(name="w", nodes={f"n{i}": Python(call="os:getpid", after=after[i]) for i in range(8)})
    reach = {i: {a for a, b in edges if b == i and a != b} for i in range(8)}
    for _ in range(8):
        reach = {i: near | {far for one in near for far in reach[one]} for i, near in reach.items()}
    if any(i in far for i, far in reach.items()):
        with pytest.raises(WorkflowInvalid, match="circle"):
            lake.workflows.validate(workflow)
    else:
        order = lake.workflows.validate(workflow).order
        assert all(order.index(one) < order.index(f"n{i}") for i in range(8) for one in after[i])


@pytest.mark.parametrize("text", [b"\xff\xfe", b"[nodes]\n" * 3, b"a = " + b"[" * 5000, b"nodes = 1", b"", b"x" * 100])
def test_hostile_files(tmp_path, text):
    (tmp_path / "w.toml").write_bytes(text)
    with pytest.raises(WorkflowInvalid, match=r"w\.toml"):
        read(tmp_path / "w.toml", modes.known())


class Echo(Node, frozen=True, kw_only=True):
    mode = "echo"
    word: str = ""

    def run(self, work):
        work.fields["word"] = self.word


def test_a_mode_by_entry_point(monkeypatch):
    from importlib.metadata import EntryPoint

    module = types.ModuleType("echoing")
    module.Echo, module.Sql = Echo, Sql
    monkeypatch.setitem(sys.modules, "echoing", module)

    def installed(*points):
        found = [EntryPoint(name, value, modes.GROUP) for name, value in points]
        monkeypatch.setattr(modes, "entry_points", lambda group: found)
        return modes.known()

    assert installed(("echo", "echoing:Echo"))["echo"] is Echo
    for name, value in (("echo", "echoing:Nothing"), ("sql", "echoing:Sql"), ("other", "echoing:Echo")):
        with pytest.raises(WorkflowError):
            installed((name, value))


def test_schedules(tmp_path):
    import shutil
    import subprocess

    odd = tmp_path / "a b%c"
    odd.mkdir()
    schedule = Schedule("flights", odd / "lake $x", (sys.executable, "-m", "lakehouse.cli"), odd)
    files = schedule.units("Mon..Fri 06:30")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert set(files) == {"lakehouse-flights.service", "lakehouse-flights.timer"}
    assert '"' + str(odd / "lake $x").replace("%", "%%").replace("$", "$$") + '"' in files["lakehouse-flights.service"]
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", *(str(tmp_path / name) for name in files)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    line = schedule.cron("30 6 * * 1-5")
    assert line.startswith("30 6 * * 1-5 cd ")
    assert "%" not in line.replace("\\%", "")
    command = line.removeprefix("30 6 * * 1-5 ").replace("\\%", "%").partition(" && ")[2]
    assert subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    ).stdout.splitlines() == list(schedule.words)
    for bad in ("", "every day", "* * * *", "* * * * * rm", "@never", "1 2 3 4 $(x)"):
        with pytest.raises(WorkflowError):
            schedule.cron(bad)
    for bad in ("", "daily\nExecStart=rm"):
        with pytest.raises(WorkflowError):
            schedule.units(bad)
