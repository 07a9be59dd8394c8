"""The server of dashboards: where it listens, who gets in, what is served, and what a hostile viewer can do."""

import json
import re
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import nbformat
import pytest
from serving import PRIMARY, TOKENS, Server, bearer
from tornado.httpclient import HTTPRequest
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

import lakehouse

PROBE = '''
import os, ipywidgets as widgets, lakehouse
lake = lakehouse.open()
slider, said = widgets.IntSlider(), widgets.Label()
def moved(change):
    """Tries to write, as if the page had talked it into it."""
    try:
        lake.storage.put("stolen", b"x")
        said.value = "written"
    except Exception as error:
        said.value = f"{change.new} {type(error).__name__} {sorted(n for n in os.environ if 'TOKEN' in n)}"
slider.observe(moved, "value")
display(slider, said)
'''


def notebook(path, *cells, title="Probe"):
    path.parent.mkdir(exist_ok=True)
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {title}\n\nA <b>test</b>.")])
    made.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)


def shell(lake, *words):
    return subprocess.run(
        [sys.executable, "-m", "lakehouse.cli", "--lake", str(lake), "dashboards", *words],
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    lake = tmp_path_factory.mktemp("dashboards") / "lake"
    lakehouse.open(lake).close()
    notebook(lake / "dashboards" / "probe.ipynb", PROBE)
    notebook(lake / "dashboards" / "broken.ipynb", "secret_name = 1 / 0", title="Broken")
    notebook(lake / "dashboards" / "hidden.ipynb", "print('hidden')")
    notebook(lake / "dashboards" / "moving.ipynb", "print('as published')", title="Moving")
    with lakehouse.open(lake) as opened:
        for name in ("probe", "broken", "moving"):
            opened.dashboards.publish(name)
    return lake


@pytest.fixture(scope="module")
def server(place, tmp_path_factory):
    words = ["lakehouse.cli", "--lake", str(place), "dashboards", "--viewers=3", "--each=2"]
    started = Server(tmp_path_factory.mktemp("server"), words, TOKENS)
    yield started.ready()
    started.stop()


@pytest.fixture
def viewer(server):
    """A browser that is logged in."""
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        assert client.post("/login", data={"token": PRIMARY, "next": "/"}).status_code == 303
        yield client


def by_hand(server, client, path):
    """What a path answers that no client would send as it is."""
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        cookie = client.cookies["lakehouse-viewer"]
        wire.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode())
        wire.sendall(f"Cookie: lakehouse-viewer={cookie}\r\n\r\n".encode())
        return b"".join(iter(lambda: wire.recv(65536), b"")).decode(errors="replace")


def opened(client, name="probe.ipynb"):
    """Open a page; returns it, and the id of its kernel."""
    answer = client.get(f"/voila/render/{name}")
    assert answer.status_code == 200, answer.text
    return answer.text, re.search(r'"kernelId": "([^"]+)"', answer.text)[1]


# Where it listens


@pytest.mark.parametrize(
    ("ip", "environ", "said"),
    [
        ("0.0.0.0", {}, "needs a token"),
        ("", {}, "needs a token"),
        ("0.0.0.0", {"AUTH_TOKEN": "short"}, "at least"),
    ],
)
def test_it_does_not_listen_where_nothing_protects(place, tmp_path, ip, environ, said):
    started = Server(tmp_path, ["lakehouse.cli", "--lake", str(place), "dashboards", f"--ip={ip}"], environ)
    code, line = started.refused()
    assert code == 2
    assert said in line


def test_plain_voila_with_our_configuration_stays_on_this_machine(place, tmp_path):
    settings = str(Path(lakehouse.__file__).parent / "server" / "config")
    words = ["voila", "--Voila.ip=0.0.0.0", "--no-browser", str(place / "dashboards")]
    code, line = Server(tmp_path, words, {"JUPYTER_CONFIG_PATH": settings, **TOKENS}).refused()
    assert code == 2
    assert "lakehouse dashboards" in line


# Publishing


def test_publishing_in_the_shell(place):
    listed = json.loads(shell(place, "list", "--json").stdout)
    states = {one["name"]: one["state"] for one in listed}
    assert states["probe"] == "published"
    assert states["hidden"] == states["flights"] == "not published"
    wrong = shell(place, "publish", "../probe")
    assert (wrong.returncode, "cannot be the name" in wrong.stderr) == (1, True)


def test_running_a_notebook_is_no_change_of_it(lake):
    path = lake.path / "dashboards" / "one.ipynb"
    notebook(path, "1 + 1")
    before = lake.dashboards.publish("one")
    ran = nbformat.read(path, 4)
    ran.cells[1].outputs = [nbformat.v4.new_output("stream", text="2")]
    ran.cells[1].execution_count = 7
    nbformat.write(ran, path)
    assert lake.dashboards.served("one")[0] == before
    ran.cells[1].source = "1 + 2"
    nbformat.write(ran, path)
    with pytest.raises(lakehouse.LakehouseError, match="changed"):
        lake.dashboards.served("one")
    lake.dashboards.publish("one")
    (path.parent / "published" / "one.ipynb").write_text("{}")
    with pytest.raises(lakehouse.LakehouseError, match="not what was published"):
        lake.dashboards.served("one")
    lake.dashboards.unpublish("one")
    with pytest.raises(lakehouse.LakehouseError, match="not published"):
        lake.dashboards.served("one")
    with lakehouse.open(lake.path, read_only=True) as reader, pytest.raises(lakehouse.LakehouseError):
        reader.dashboards.publish("one")


def test_the_lake_of_the_environment_can_be_for_reading_only(lake, monkeypatch):
    monkeypatch.setenv("LAKEHOUSE_PATH", str(lake.path))
    monkeypatch.setenv("LAKEHOUSE_READ_ONLY", "1")
    with lakehouse.open() as reader, pytest.raises(lakehouse.LakehouseError) as caught:
        reader.sql("CREATE TABLE t AS SELECT 1 AS a")
    assert caught.value.code == "lake_read_only"


# Who gets in


def test_nobody_gets_anywhere_without_a_token(server):
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        for path in ("/", "/voila/render/probe.ipynb", "/voila/static/voila.js", "/voila/templates/lab/static/index.css",
                     "/api/kernels", f"/api/kernels/{uuid.uuid4()}/channels", "/nothing", "/login/", "/Login"):  # fmt: skip
            for headers in ({}, {"Upgrade": "websocket", "Connection": "Upgrade", "Accept": "text/html"}):
                assert client.get(path, headers=headers).status_code == 401, path
            assert client.get(path, headers=bearer("wrong-token-1234567")).status_code in (401, 429)
            assert client.get(path + "?token=" + PRIMARY).status_code == 401
        page = client.get("/voila/render/probe.ipynb?a=b", headers={"Accept": "text/html"})
        assert page.status_code == 302
        assert page.headers["Location"] == "/login?next=%2Fvoila%2Frender%2Fprobe.ipynb%3Fa%3Db"
        for cookie in (b"x", b"a.b.c", b"a.99999999999.0", b"\xc3\xa9.9.9"):
            assert client.get("/", headers={"Cookie": b"lakehouse-viewer=" + cookie}).status_code == 401
        assert client.get("/", headers=bearer(PRIMARY)).status_code == 200


def test_logging_in_and_out(server):
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        assert client.post("/login", data={"token": "no-token-of-ours-001"}).status_code == 401
        for there in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:1"):
            answer = client.post("/login", data={"token": PRIMARY, "next": there})
            assert (answer.status_code, answer.headers["Location"]) == (303, "/")
        cookie = answer.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert PRIMARY not in cookie
        index = client.get("/").text
        assert "Probe" in index
        assert "hidden" not in index
        kept = client.cookies["lakehouse-viewer"]
        assert client.post("/logout").status_code == 303
        assert client.get("/", headers={"Cookie": f"lakehouse-viewer={kept}"}).status_code == 401


# What is served


def test_only_what_is_published_is_served(server, viewer, place):
    for name in ("hidden", "flights", "nothing"):
        answer = viewer.get(f"/voila/render/{name}.ipynb")
        assert answer.status_code == 404, name
        assert "not published" in answer.text
    text, kernel = opened(viewer, "moving.ipynb")
    assert "as published" in text
    assert viewer.post(f"/voila/api/shutdown/{kernel}").status_code == 204
    path = place / "dashboards" / "moving.ipynb"
    notebook(path, "print('as changed')", title="Moving")
    answer = viewer.get("/voila/render/moving.ipynb")
    assert answer.status_code == 404
    assert "changed since" in answer.text
    with lakehouse.open(place) as lake:
        lake.dashboards.publish("moving")
    text, kernel = opened(viewer, "moving.ipynb")
    assert "as changed" in text
    assert "as published" not in text
    viewer.post(f"/voila/api/shutdown/{kernel}")


def test_an_error_in_a_notebook_is_told_without_a_traceback(viewer):
    text, kernel = opened(viewer, "broken.ipynb")
    assert "error when executing" in text
    for told in ("ZeroDivisionError", "secret_name", "Traceback", str(Path(lakehouse.__file__).parent)):
        assert told not in text
    viewer.post(f"/voila/api/shutdown/{kernel}")


def test_a_full_house_says_so(server, viewer):
    kernels = [opened(viewer)[1] for _ in range(2)]
    answer = viewer.get("/voila/render/probe.ipynb")
    assert answer.status_code == 503
    assert "You have 2 pages open" in answer.text
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False, headers=bearer(PRIMARY)) as other:
        another = opened(other)[1]
        answer = other.get("/voila/render/probe.ipynb", headers={"Cookie": ""})
        assert answer.status_code == 503
        assert "3 pages are open, which is the most" in answer.text
        assert other.post(f"/voila/api/shutdown/{another}").status_code == 204
    for kernel in kernels:
        assert viewer.post(f"/voila/api/shutdown/{kernel}").status_code == 204
    assert viewer.post(f"/voila/api/shutdown/{kernels[0]}").status_code == 404


# A hostile viewer


class Wire:
    """The websocket of a kernel, spoken by hand."""

    def __init__(self, server, client, kernel):
        self.session = uuid.uuid4().hex
        cookie = "; ".join(f"{one.name}={one.value}" for one in client.cookies.jar)
        self.url = f"{server.url.replace('http', 'ws')}/api/kernels/{kernel}/channels?session_id={self.session}"
        self.request = HTTPRequest(self.url, headers={"Cookie": cookie, "Origin": server.url})

    async def open(self):
        self.socket = await websocket_connect(self.request)
        return self

    async def send(self, kind, content, channel="shell", metadata=None):
        header = {"msg_id": uuid.uuid4().hex, "msg_type": kind, "username": "", "session": self.session,
                  "date": "2013-01-01T00:00:00Z", "version": "5.3"}  # fmt: skip
        message = {"header": header, "parent_header": {}, "metadata": metadata or {},
                   "content": content, "channel": channel}  # fmt: skip
        await self.socket.write_message(json.dumps(message))
        return header["msg_id"]

    async def hear(self, until, seconds=60):
        """Everything up to the first message that `until` is true of; fails when none comes."""
        import asyncio

        heard, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            raw = await asyncio.wait_for(self.socket.read_message(), end - time.monotonic())
            if isinstance(raw, bytes):  # with buffers: offsets first
                count = int.from_bytes(raw[:4], "big")
                offsets = [int.from_bytes(raw[4 * n : 4 * n + 4], "big") for n in range(1, count + 1)] + [len(raw)]
                raw = raw[offsets[0] : offsets[1]]
            message = json.loads(raw)
            heard.append(message)
            if until(message):
                return heard
        raise AssertionError(heard)


def replies(kind, to):
    return lambda m: m["header"]["msg_type"] == kind and m["parent_header"].get("msg_id") == to


def test_a_hostile_viewer_gets_nothing(server, viewer, place, tmp_path):
    _, kernel = opened(viewer)
    stolen = tmp_path / "stolen"
    code = f"open({str(stolen)!r}, 'w').write('x'); import lakehouse; lakehouse.open().storage.put('stolen', b'x')"

    async def attack():
        wire = await Wire(server, viewer, kernel).open()
        info = await wire.send("kernel_info_request", {})
        await wire.hear(replies("kernel_info_reply", info))
        run = {"code": code, "silent": False, "store_history": False, "user_expressions": {"a": code}}
        for channel in ("shell", "control", "stdin", "iopub", "nothing"):
            await wire.send("execute_request", run, channel)
            await wire.send("shutdown_request", {"restart": True}, channel)
            await wire.send("interrupt_request", {}, channel)
            await wire.send("debug_request", {"command": "evaluate", "arguments": {"expression": code}}, channel)
        await wire.send("inspect_request", {"code": "lake", "cursor_pos": 4, "detail_level": 1})
        await wire.send("complete_request", {"code": "lake.", "cursor_pos": 5})
        await wire.send("history_request", {"hist_access_type": "tail", "n": 10, "output": True, "raw": True})
        await wire.send("is_complete_request", {"code": code})
        await wire.send("input_reply", {"value": code}, "stdin")
        for target in ("jupyter.widget", "jupyter.widget.version", "execute", "nothing", ""):
            state = {"_model_module": "@jupyter-widgets/controls", "_model_name": "TextModel", "value": code}
            made = {"comm_id": uuid.uuid4().hex, "target_name": target, "data": {"state": state, "code": code}}
            await wire.send("comm_open", made | {"target_module": "os"})
        for raw in (b"", b"\x00" * 40, "{}", "[]", "nonsense", '{"channel": "shell"}'):
            await wire.socket.write_message(raw, binary=isinstance(raw, bytes))
        # The widgets there are, as a page asks for them; then messages to each of them that no page sends.
        asks = {"comm_id": uuid.uuid4().hex, "target_name": "jupyter.widget.control", "data": {}}
        await wire.send("comm_open", asks, metadata={"version": "1.0.0"})
        await wire.send("comm_msg", {"comm_id": asks["comm_id"], "data": {"method": "request_states"}})
        heard = await wire.hear(lambda m: m["content"].get("data", {}).get("method") == "update_states")
        states = heard[-1]["content"]["data"]["states"]
        sliders = [one for one, state in states.items() if state["model_name"] == "IntSliderModel"]
        assert len(sliders) == 1
        for widget in states:
            for data in (
                {"method": "custom", "content": {"code": code, "event": "click", "method": "execute"}},
                {"method": "execute", "code": code},
                {"method": "update", "state": {"value": code, "_view_module": code, "comm": code}},
                {"method": "backbone", "sync_data": {"value": code}},
                {"code": code},
                code,
            ):
                await wire.send("comm_msg", {"comm_id": widget, "data": data})
        await wire.send("comm_msg", {"comm_id": sliders[0], "data": {"method": "update", "state": {"value": 41}}})
        last = await wire.hear(
            lambda m: (
                m["header"]["msg_type"] == "comm_msg"
                and str(m["content"]["data"].get("state", {}).get("value", "")).startswith("41 ")
            )
        )
        # The kernel is the same one still, and what it said had no code, no result and no traceback in it.
        kinds = {message["header"]["msg_type"] for message in [*heard, *last]}
        told = last[-1]["content"]["data"]["state"]["value"]
        wire.socket.close()
        return kinds, told

    kinds, told = IOLoop(make_current=False).run_sync(attack, timeout=60)
    assert kinds <= {"status", "comm_msg", "comm_open", "comm_close", "stream", "kernel_info_reply"}, kinds
    assert told == "41 LakeReadOnly []"
    assert not stolen.exists()
    with lakehouse.open(place, read_only=True) as lake:
        assert not list(lake.storage.list(""))

    # Another viewer, who has a pass too, and knows the kernel's id
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as other:
        other.post("/login", data={"token": PRIMARY})

        async def intrude():
            await Wire(server, other, kernel).open()

        with pytest.raises(Exception, match="404"):
            IOLoop(make_current=False).run_sync(intrude, timeout=60)
        assert other.get(f"/api/kernels/{kernel}").status_code == 404
        assert other.post(f"/voila/api/shutdown/{kernel}").status_code == 404

    # What is Jupyter's or Voila's own
    mine = f"/api/kernels/{kernel}"
    assert viewer.get(mine).status_code == 200
    for method, path in (
        ("DELETE", mine), ("POST", f"{mine}/restart"), ("POST", f"{mine}/interrupt"), ("POST", "/api/kernels"),
        ("GET", "/api/kernels"), ("GET", "/api/contents"), ("GET", "/api/contents/probe.ipynb"), ("PUT", "/api/contents/x"),
        ("GET", "/api/sessions"), ("GET", "/api/terminals"), ("POST", "/api/terminals"), ("GET", "/api/config/x"),
        ("GET", "/api/kernelspecs"), ("GET", "/api/status"), ("GET", "/files/probe.ipynb"), ("GET", "/voila/files/probe.ipynb"),
        ("GET", "/voila/tree"), ("GET", "/voila/tree/"), ("GET", "/voila/api/contents/"), ("GET", "/voila/render/"),
        ("GET", "/voila/render/published/probe.ipynb"), ("GET", "/voila/render/..%2Fprobe.ipynb"), ("GET", "/lakehouse/v1/tables"),
        ("GET", f"/voila/query/{kernel}"), ("GET", f"/voila/execution/{kernel}"), ("GET", "/nbconvert/html/probe.ipynb"),
    ):  # fmt: skip
        assert viewer.request(method, path).status_code in (404, 405), (method, path)
    secrets = (place / "lake.json").read_text()
    for root in ("static", "templates", "templates/lab/static", "labextensions", "api/themes"):
        for up in ("../" * 9, "%2e%2e/" * 9, "..%2f" * 9, "%2e%2e%2f" * 9, "/", "..%5c" * 9, "static/" + "../" * 9):
            for target in (f"{place}/lake.json".lstrip("/"), "etc/passwd"):
                text = by_hand(server, viewer, f"/voila/{root}/{up}{target}")
                assert secrets not in text
                assert "root:" not in text
    for query in ("template=reveal", "template=../../../etc&theme=../x"):
        text, another = opened(viewer, f"probe.ipynb?{query}&")
        assert "lh-bar" in text
        assert "reveal" not in text
        viewer.post(f"/voila/api/shutdown/{another}")
    viewer.post(f"/voila/api/shutdown/{kernel}")
    log = server.log
    for token in TOKENS.values():
        assert token not in log


def test_a_rotation_ends_the_passes(place, tmp_path):
    file = tmp_path / "token"
    file.write_text(PRIMARY)
    file.chmod(0o600)
    words = ["lakehouse.cli", "--lake", str(place), "dashboards"]
    started = Server(tmp_path, words, {"AUTH_TOKEN_FILE": str(file), "LAKEHOUSE_AUTH_MAX_FAILURES": "3"}).ready()
    try:
        with httpx.Client(base_url=started.url, timeout=60, trust_env=False) as client:
            client.post("/login", data={"token": PRIMARY})
            assert client.get("/").status_code == 200
            file.write_text("another-token-of-ours-01")
            started.hang_up()
            end = time.monotonic() + 60
            while client.get("/").status_code == 200 and time.monotonic() < end:
                time.sleep(0.05)
            assert client.get("/").status_code == 401
            for _ in range(3):
                assert client.post("/login", data={"token": PRIMARY}).status_code == 401
            waits = client.post("/login", data={"token": "another-token-of-ours-01"})
            assert waits.status_code == 429
    finally:
        started.stop()


def test_without_a_token_another_sites_name_is_refused(place, tmp_path):
    started = Server(tmp_path, ["lakehouse.cli", "--lake", str(place), "dashboards"]).ready()
    try:
        with httpx.Client(base_url=started.url, timeout=60, trust_env=False) as client:
            assert client.get("/").status_code == 200
            for headers in ({"Host": "evil.example"}, {"Host": ""}, {"X-Forwarded-For": "127.0.0.1"}, {"Via": "1.1 x"}):
                assert client.get("/", headers=headers).status_code in (400, 403), headers
            owner = client.get("/voila/render/probe.ipynb")
            kernel = re.search(r'"kernelId": "([^"]+)"', owner.text)[1]
            assert client.get(f"/api/kernels/{kernel}").status_code == 200
            assert httpx.get(f"{started.url}/api/kernels/{kernel}", timeout=60).status_code == 404
    finally:
        started.stop()
