"""Who gets in to a running server with everything that Jupyter has: tokens, cookies, addresses, rotation, wrong tokens."""

import asyncio
import json
import re
import time

import httpx
import pytest
from serving import JUPYTER, PRIMARY, READER, SECOND, TOKENS, V1, Server, bearer, problem
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

import lakehouse
from lakehouse.server.routes.all import ROUTES

NEW = "rotated-token-00000005"
OUTSIDE, INSIDE = "198.51.100.9", "203.0.113.7"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab on a lake, behind a proxy on this machine; `X-Forwarded-For` says which address asks."""
    folder = tmp_path_factory.mktemp("guarded")
    lakehouse.open(folder / "lake").close()
    write_settings(folder)
    token = folder / "token"
    token.write_text(PRIMARY)
    token.chmod(0o600)
    environ = {name: value for name, value in TOKENS.items() if name != "AUTH_TOKEN"} | {"AUTH_TOKEN_FILE": str(token)}
    running = Server(folder, ["lakehouse.cli", "lab", "--no-browser"], environ)
    try:
        yield running.ready()
    finally:
        running.stop()


def write_settings(folder, **more):
    values = {"allowed_ips": ["127.0.0.0/8", "203.0.113.0/24"], "trusted_proxies": ["127.0.0.1"], "max_failures": 5}
    lines = [f"{name} = {json.dumps(value)}" for name, value in (values | more).items()]
    (folder / "lake" / "lakehouse.toml").write_text("\n".join(["[auth]", *lines]))


def from_(address):
    return {"X-Forwarded-For": address}


def filled(route):
    return re.sub(r"\{\w+(\.\.\.)?\}", "x", route.path)


def answered(client, method, path, **given):
    """An answer; of one without end its beginning."""
    with client.stream(method, path, **given) as answer:
        if answer.headers.get("Content-Type") == "text/event-stream":
            return httpx.Response(answer.status_code, headers=answer.headers, content=next(answer.iter_bytes()))
        answer.read()
        return answer


@pytest.fixture(scope="module")
def jupyter(server):
    """A browser that is logged in to Jupyter: its cookie, and what it sends against forgery."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as browser:
        assert browser.get(f"/lab?token={JUPYTER}").status_code == 200
        yield browser


def test_every_route_asks_who_it_is(server, jupyter):
    """Every route × every kind of caller; none is left out, as the list is the one that is served."""
    callers = {
        "no token": ({}, 401),
        "wrong token": ({**bearer("wrong-token-0000000"), **from_(INSIDE)}, 401),
        "rotated out": ({**bearer(NEW), **from_("203.0.113.8")}, 401),
        "Jupyter's token as ours, in another scheme": ({"Authorization": f"Basic {PRIMARY}"}, 401),
        "outside": ({**bearer(PRIMARY), **from_(OUTSIDE)}, 403),
        "outside, spoofed": ({**bearer(PRIMARY), **from_(f"{INSIDE}, {OUTSIDE}"), "X-Real-IP": INSIDE}, 403),
        "read token": (bearer(READER), None),
        "primary": (bearer(PRIMARY), "in"),
        "secondary": (bearer(SECOND), "in"),
    }
    seen = dict.fromkeys(callers, 0)
    for route in ROUTES:
        for name, (headers, expected) in callers.items():
            sent = dict(headers)
            if expected == 401 and "Authorization" in headers:  # each from a few places, so that nobody has to wait
                sent["X-Forwarded-For"] = f"203.0.113.{20 + 60 * list(callers).index(name) + seen[name] // 4}"
            wanted = expected
            if expected is None:
                wanted = "in" if route.label == "read" else 403  # writes and admin
            # What would change the lake is asked with a body that no route takes.
            body = (
                {"content": b"[", "headers": {**sent, "Content-Type": "text/nothing"}}
                if route.method != "GET"
                else {"headers": sent}
            )
            answer = answered(server.client, route.method, V1 + filled(route), **body)
            seen[name] += 1
            where = f"{route.method} {route.path} as {name}: {answer.status_code} {answer.text[:200]}"
            if wanted == "in":
                assert answer.status_code not in (401, 403), where
                assert answer.status_code < 500, where
            else:
                assert answer.status_code == wanted, where
                if route.method != "HEAD":
                    problem(answer, wanted)
            assert PRIMARY not in answer.text, where
            assert "Set-Cookie" not in answer.headers, where
    assert set(seen.values()) == {len(ROUTES)}
    for route in ROUTES:
        if route.method == "GET":
            assert answered(jupyter, "GET", V1 + filled(route)).status_code not in (401, 403)


def test_only_health_asks_nobody(server):
    for path in ("/health", "/lakehouse/health"):
        for headers in ({}, bearer("wrong")):
            answer = server.client.get(path, headers=headers)
            assert (answer.status_code, set(answer.json())) == (200, {"status", "version"})
            assert server.client.head(path, headers=headers).status_code == 200
            assert "Set-Cookie" not in answer.headers
    assert server.client.post("/health").status_code == 405


@pytest.mark.parametrize("token", [PRIMARY, SECOND, READER])
def test_the_token_opens_our_routes_only(server, token):
    """Kernels, contents, terminals, language servers, the lab, the login page: 403, in the header and in the URL."""
    paths = [
        "/api/kernels", "/api/contents", "/api/contents/lake", "/api/terminals", "/api/sessions", "/api/kernelspecs",
        "/api/config/x", "/api/status", "/api/me", "/lsp/status", "/lab", "/lab/api/settings", "/lab/api/workspaces",
        "/files/log.txt", "/login", "/tree", "/view/log.txt", "/nbconvert/html/x.ipynb", "/", "/no/such/page", "/static/favicon.ico",
    ]  # fmt: skip
    for path in paths:
        assert server.client.get(path, headers=bearer(token)).status_code == 403, path
        assert server.client.get(path, params={"token": token}).status_code == 403, path
    for path in ("/api/kernels", "/api/terminals", "/api/contents", "/api/sessions"):
        answer = server.client.post(path, headers=bearer(token), json={})
        assert answer.status_code == 403, path
        assert "Set-Cookie" not in answer.headers
        assert token not in answer.text
    assert not any(token in str(cookie.value) for cookie in server.client.cookies.jar)


def test_nobody_learns_by_guessing_elsewhere_that_a_token_is_right(server):
    """After five wrong ones of an address right and wrong get one answer; Jupyter's own token still passes."""

    def ask(token):
        return server.client.get("/api/kernels", headers={**bearer(token), **from_("203.0.113.60")})

    def refused():
        text = server.call("GET", "/metrics", token=READER).text
        return float(re.search(r'lakehouse_http_refused_total\{why="elsewhere"\} (\S+)', text)[1])

    before, elsewhere = refused(), "opens the lake's routes only"
    server.client.cookies.clear()
    assert not any(elsewhere in ask(f"guess-{n}-0000000000").text for n in range(5))
    assert elsewhere in problem(ask("guess-6-0000000000"), 403, "forbidden")["detail"]
    assert elsewhere in problem(ask(PRIMARY), 403, "forbidden")["detail"]
    assert ask(JUPYTER).status_code == 200
    assert refused() == before + 2
    assert server.call("GET", "/whoami", headers=from_("203.0.113.60")).status_code == 200
    server.client.cookies.clear()


def test_a_token_counts_in_the_header_only(server):
    for path in (f"/ready?token={PRIMARY}", f"/whoami?token={PRIMARY}"):
        problem(server.call("GET", path, token=None), 401, "unauthenticated")
    cookies = {"token": PRIMARY, f"username-127-0-0-1-{server.port}": PRIMARY}
    problem(httpx.get(f"{server.url}{V1}/ready", cookies=cookies, trust_env=False), 401)
    for scheme in ("Bearer", "bearer", "token"):
        headers = {"Authorization": f"{scheme} {PRIMARY}"}
        assert server.call("GET", "/whoami", token=None, headers=headers).json()["principal"] == "primary"


def test_a_scope_is_not_passed(server):
    who = {token: server.call("GET", "/whoami", token=token).json() for token in (PRIMARY, SECOND, READER)}
    assert [one["principal"] for one in who.values()] == ["primary", "secondary 1", "read 1"]
    assert who[READER]["scopes"] == ["read"]
    problem(server.call("PUT", "/storage/scoped", token=READER, content=b"x"), 403, "forbidden")
    problem(server.call("POST", "/admin/reload", token=READER), 403)
    problem(server.call("GET", "/storage/scoped", token=READER), 404)


def test_a_browser_that_is_logged_in_may_use_the_routes_but_other_sites_may_not(server, jupyter):
    assert jupyter.get(f"{V1}/whoami").json()["principal"] == "jupyter"
    assert jupyter.get("/api/kernels").status_code == 200
    xsrf = {"X-XSRFToken": jupyter.cookies["_xsrf"]}
    put = f"{V1}/storage/from-the-browser"
    problem(jupyter.put(put, content=b"x"), 403)
    problem(jupyter.put(put, content=b"x", headers={"X-XSRFToken": "forged"}), 403)
    problem(jupyter.put(put, content=b"x", headers={**xsrf, "Origin": "https://elsewhere.example"}), 403)
    problem(jupyter.put(put, content=b"x", headers={**xsrf, "Sec-Fetch-Site": "cross-site"}), 403)
    problem(jupyter.get(f"{V1}/ready", headers={"Origin": "https://elsewhere.example"}), 403)
    problem(server.call("GET", "/storage/from-the-browser"), 404)
    assert jupyter.put(put, content=b"x", headers=xsrf).status_code == 201
    # A token is sent by programs, which no site can make send it: neither cookie nor origin matter.
    answer = server.call("PUT", "/storage/token", content=b"x", headers={"Origin": "https://elsewhere.example"})
    assert answer.status_code == 201
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert server.call("GET", "/whoami", token=JUPYTER).json()["principal"] == "jupyter"


def test_the_allowlist_covers_every_route_of_the_server(server, jupyter):
    static = re.search(r'"(/static/lab/[^"]+\.js[^"]*)"', jupyter.get("/lab").text)[1]
    for path in ("/health", "/lakehouse/health", f"{V1}/ready", "/api/kernels", "/lab", static, "/login", "/no/such"):
        assert jupyter.get(path).status_code != 403, path
        for headers in (from_(OUTSIDE), from_(f"{INSIDE}, {OUTSIDE}"), from_("nonsense"), from_("::1")):
            for method in ("GET", "HEAD", "POST", "OPTIONS"):
                answer = jupyter.request(method, path, headers=headers)
                assert answer.status_code == 403, (method, path, headers)
                if method == "GET":
                    assert "allowed" in problem(answer, 403, "forbidden")["detail"]
        assert jupyter.get(path, headers={"X-Real-IP": OUTSIDE, "Forwarded": f"for={OUTSIDE}"}).status_code != 403
        assert jupyter.get(path, headers=from_(INSIDE)).status_code != 403, path
        assert jupyter.get(path, headers=from_(f"::ffff:{INSIDE}")).status_code != 403, path


def test_the_allowlist_and_the_token_hold_for_websockets(server, jupyter):
    cookie = "; ".join(f"{one.name}={one.value}" for one in jupyter.cookies.jar)
    kernel = jupyter.post("/api/kernels", headers={"X-XSRFToken": jupyter.cookies["_xsrf"]}, json={}).json()["id"]
    url = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel}/channels"

    def opened(headers):
        async def connect():
            try:
                socket = await websocket_connect(HTTPRequest(url, headers=headers))
            except HTTPClientError as error:
                return error.code
            socket.close()
            return 101

        return asyncio.run(connect())

    assert opened({"Cookie": cookie}) == 101
    assert opened({"Cookie": cookie, **from_(OUTSIDE)}) == 403
    assert opened({}) == 403
    assert opened(bearer(PRIMARY)) == 403
    assert opened({"Cookie": cookie, **bearer(PRIMARY)}) == 403


def test_a_rotation_ends_open_websockets(server, jupyter):
    """Who was let in with a cookie of before is asked again; the kernel runs on."""
    cookie = "; ".join(f"{one.name}={one.value}" for one in jupyter.cookies.jar)
    kernel = jupyter.post("/api/kernels", headers={"X-XSRFToken": jupyter.cookies["_xsrf"]}, json={}).json()["id"]
    url = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel}/channels"

    async def ended():
        socket = await websocket_connect(HTTPRequest(url, headers={"Cookie": cookie}))
        loop = asyncio.get_running_loop()
        assert (await loop.run_in_executor(None, server.call, "POST", "/admin/reload")).status_code == 200
        while await asyncio.wait_for(socket.read_message(), 60) is not None:
            pass  # what the kernel had said before
        again = await websocket_connect(HTTPRequest(url, headers={"Cookie": cookie}))
        again.close()

    asyncio.run(ended())
    assert kernel in [one["id"] for one in jupyter.get("/api/kernels").json()]


def test_kernels_do_not_get_the_tokens(server, jupyter):
    """Asked in a kernel itself: its environment has the lake, and no token."""
    cookie = "; ".join(f"{one.name}={one.value}" for one in jupyter.cookies.jar)
    kernel = jupyter.post("/api/kernels", headers={"X-XSRFToken": jupyter.cookies["_xsrf"]}, json={}).json()["id"]
    code = "import json, os; print(json.dumps(dict(os.environ)))"

    async def ask():
        url = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel}/channels"
        socket = await websocket_connect(HTTPRequest(url, headers={"Cookie": cookie}))
        head = {"msg_id": "1", "msg_type": "execute_request", "session": "s", "username": "u", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        await socket.write_message(
            json.dumps({"channel": "shell", "header": head, "parent_header": {}, "metadata": {}, "content": content})
        )
        while True:
            message = json.loads(await asyncio.wait_for(socket.read_message(), 60))
            if message["msg_type"] == "stream":
                socket.close()
                return json.loads(message["content"]["text"])

    environ = asyncio.run(ask())
    assert environ["LAKEHOUSE_PATH"] == str(server.folder / "lake")
    text = json.dumps(environ)
    for token in (PRIMARY, SECOND, READER, JUPYTER):
        assert token not in text
    assert not {"AUTH_TOKEN", "AUTH_TOKEN_SECONDARY", "AUTH_TOKEN_READ"} & set(environ)


def test_wrong_tokens_make_their_address_wait(server):
    def ask(token, address):
        return server.call("GET", "/whoami", token=token, headers=from_(address))

    for n in range(5):
        problem(ask(f"guess-{n}-0000000000", "203.0.113.50"), 401, "unauthenticated")
    waits = ask(PRIMARY, "203.0.113.50")
    assert "try again in" in problem(waits, 429, "too_many_attempts")["hint"]
    assert int(waits.headers["Retry-After"]) > 0
    assert ask(PRIMARY, "203.0.113.51").status_code == 200
    for _ in range(10):  # no token is no attempt
        problem(server.call("GET", "/whoami", token=None, headers=from_("203.0.113.52")), 401)
    assert ask(PRIMARY, "203.0.113.52").status_code == 200
    log = server.log
    assert "wrong token from 203.0.113.50 (5 of 5" in log
    assert "guess-" not in log


def test_tokens_are_rotated_without_a_restart(server, jupyter):
    """New primary and old one beside it, then the old one ends; by a request and by SIGHUP. Old cookies end with it."""

    def wait(token, status):
        end = time.monotonic() + 60
        while (found := server.call("GET", "/whoami", token=token).status_code) != status and time.monotonic() < end:
            time.sleep(0.05)
        assert found == status

    (server.folder / "token").write_text(NEW)
    write_settings(server.folder, secondary_tokens=[PRIMARY], max_failures=1000)
    assert jupyter.get(f"{V1}/whoami").status_code == 200
    told = server.call("POST", "/admin/reload")
    assert told.status_code == 200
    assert told.json()["tokens"] == 4
    for token, name in ((NEW, "primary"), (PRIMARY, "secondary 1"), (SECOND, "secondary 2"), (READER, "read 1")):
        assert server.call("GET", "/whoami", token=token).json()["principal"] == name
    problem(jupyter.get(f"{V1}/whoami"), 401)
    assert jupyter.get("/api/kernels").status_code == 403
    assert jupyter.get(f"/lab?token={JUPYTER}").status_code == 200, "a new login makes a new cookie"
    assert jupyter.get("/api/kernels").status_code == 200

    write_settings(server.folder, max_failures=1000)
    server.hang_up()
    wait(PRIMARY, 401)
    wait(NEW, 200)

    (server.folder / "lake" / "lakehouse.toml").write_text("[auth\n")
    server.hang_up()
    end = time.monotonic() + 60
    while "stay as they were" not in server.log and time.monotonic() < end:
        time.sleep(0.05)
    assert "stay as they were" in server.log
    problem(server.call("POST", "/admin/reload", token=NEW), 400, "config_invalid")
    assert server.call("GET", "/whoami", token=NEW).status_code == 200

    write_settings(server.folder, allowed_ips=["203.0.113.0/24"], max_failures=1000)
    server.hang_up()
    wait(NEW, 403)
    assert server.call("GET", "/whoami", token=NEW, headers=from_(INSIDE)).status_code == 200
    write_settings(server.folder)
    (server.folder / "token").write_text(PRIMARY)
    server.hang_up()
    wait(PRIMARY, 200)


def test_the_log_holds_no_token(server):
    """Asked last: whatever was sent above, also in URLs, the log has none of it."""
    server.client.get(f"{V1}/whoami?token={PRIMARY}", headers={"Referer": f"{server.url}/?token={PRIMARY}"})
    server.client.get(f"/api/kernels?token={READER}")
    log = server.log
    for token in (PRIMARY, SECOND, READER, NEW, "wrong-token-0000000"):
        assert token not in log
    assert "Traceback" not in log
