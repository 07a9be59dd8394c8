"""What a server does not start with: exit code 2, one line, and a port that was never open."""

import sys
from pathlib import Path

import pytest
from jupyter_server.extension.config import ExtensionConfigManager
from serving import PRIMARY, Server, problem

import lakehouse

ROOT = Path(__file__).parents[2]
GUARD = {"jupyter_server_config.py": (ROOT / "jupyter_server_config.py").read_text()}
"""The configuration of the checkout: Jupyter reads it where its configuration is, or with `--config`."""
REFUSALS = {
    # name: (command, environment, files, what the line says)
    "serve 0.0.0.0": (["lakehouse.cli", "serve", "--ip=0.0.0.0"], {}, {}, "needs a token"),
    "serve ::": (["lakehouse.cli", "serve", "--ip=::"], {}, {}, "needs a token"),
    "serve *": (["lakehouse.cli", "serve", "--ip=*"], {}, {}, "needs a token"),
    "serve empty": (["lakehouse.cli", "serve", "--ip="], {}, {}, "needs a token"),
    "serve a name off loopback": (["lakehouse.cli", "serve", "--ip=off-loopback.invalid"], {}, {}, "needs a token"),
    "serve with an allowlist only": (
        ["lakehouse.cli", "serve", "--ip=0.0.0.0"], {"LAKEHOUSE_AUTH_ALLOWED_IPS": "10.0.0.0/8"}, {}, "needs a token",
    ),
    "serve with a short token": (
        ["lakehouse.cli", "serve", "--ip=0.0.0.0"], {"AUTH_TOKEN": "x" * 15}, {}, "at least 16 characters",
    ),
    "serve with an empty token": (["lakehouse.cli", "serve"], {"AUTH_TOKEN": ""}, {}, "AUTH_TOKEN is empty"),
    "lab": (["lakehouse.cli", "lab", "--no-browser", "--ip=0.0.0.0"], {}, {}, "needs a token"),
    "jupyter lab": (["jupyterlab", "--allow-root", "--no-browser", "--ip=0.0.0.0"], {}, GUARD, "needs a token"),
    "jupyter server --config": (
        ["jupyter_server", "--allow-root", "--ip=0.0.0.0", f"--config={ROOT / 'jupyter_server_config.py'}"],
        {}, {}, "needs a token",
    ),
    "a configuration file that is not there": (
        ["lakehouse.cli", "serve", "--", "--config=nowhere.py"], {}, {}, "cannot be loaded",
    ),
    "a broken Jupyter configuration": (
        ["lakehouse.cli", "serve"], {}, {"jupyter_server_config.py": "c.ServerApp.ip = \n"}, "cannot be loaded",
    ),
    "a broken configuration of the lab": (
        ["lakehouse.cli", "lab", "--no-browser"], {}, {"jupyter_lab_config.json": "{"}, "cannot be loaded",
    ),
    "a broken lakehouse.toml": (["lakehouse.cli", "serve"], {}, {"lake/lakehouse.toml": "[auth\n"}, "not valid TOML"),
    "a wrong allowlist": (
        ["lakehouse.cli", "serve"], {}, {"lake/lakehouse.toml": '[auth]\nallowed_ips = ["10.0.0.1/8"]\n'}, "auth.allowed_ips",
    ),
    "Jupyter's token is ours": (
        ["lakehouse.cli", "serve"], {"AUTH_TOKEN": PRIMARY, "JUPYTER_TOKEN": PRIMARY}, {}, "must never open kernels",
    ),
    "Jupyter's login is off": (
        ["lakehouse.cli", "serve", "--", "--IdentityProvider.token="], {"AUTH_TOKEN": PRIMARY}, {}, "login is off",
    ),
    "another identity provider": (
        ["lakehouse.cli", "serve", "--", "--ServerApp.identity_provider_class=jupyter_server.auth.identity.LegacyIdentityProvider"],
        {}, {}, "cannot be guarded",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """All of them, three at a time."""
    left, running, found = list(REFUSALS), {}, {}
    while left or running:
        while left and len(running) < 3:
            name = left.pop(0)
            folder = tmp_path_factory.mktemp("refused")
            lakehouse.open(folder / "lake").close()
            command, environ, files, _ = REFUSALS[name]
            for file, text in files.items():
                (folder / file).write_text(text)
            running[name] = Server(folder, command, environ)
        name = next(iter(running))
        server = running.pop(name)
        try:
            found[name] = server.refused()
        except AssertionError as error:
            found[name] = (None, str(error))
        server.stop()
    return found


@pytest.mark.parametrize("name", REFUSALS)
def test_it_does_not_start(refusals, name):
    code, line = refusals[name]
    assert code == 2
    assert REFUSALS[name][-1] in line
    assert PRIMARY not in line


def test_beyond_loopback_with_a_token_it_starts_and_knows_it(tmp_path):
    lakehouse.open(tmp_path / "lake").close()
    server = Server(tmp_path, ["lakehouse.cli", "serve", "--ip=0.0.0.0"], {"AUTH_TOKEN": PRIMARY})
    try:
        server.ready()
        assert server.call("GET", "/ready").status_code == 200
        assert server.call("GET", "/ready", token=None).status_code == 401
        assert PRIMARY not in server.log
        # A reload that would leave it open to others changes nothing.
        (tmp_path / "lake" / "lakehouse.toml").write_text('[auth]\ntoken = "short"\n')
        refused = server.call("POST", "/admin/reload")
        assert (refused.status_code, refused.json()["code"]) == (403, "bind_refused")
        assert server.call("GET", "/ready").status_code == 200
    finally:
        server.stop()


def test_without_a_token_this_machine_is_served_and_no_page_of_another_site(tmp_path):
    """Development: nothing is asked of programs here. The lake need not be there, and a read does not make one."""
    for file, text in GUARD.items():
        (tmp_path / file).write_text(text)
    server = Server(tmp_path, ["jupyter_server", "--allow-root", "--ip=127.0.0.1"])
    try:
        server.ready()
        answer = server.call("GET", "/tables", token=None)
        assert (answer.status_code, answer.json()["code"]) == (400, "lake_unusable")
        assert server.call("GET", "/ready", token=None).status_code == 503
        assert not (tmp_path / "lake").exists()
        assert server.call("PUT", "/storage/a", token=None, content=b"x").status_code == 201
        assert server.call("GET", "/tables", token=None).json() == {"tables": [], "views": []}
        assert server.call("GET", "/whoami", token="any").json()["principal"] == "development"
        for headers in (
            {"Origin": "https://elsewhere.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Host": "rebound.example"},
            {"X-Forwarded-For": "127.0.0.1"},  # behind a proxy everybody seems to be this machine
            {"X-Real-IP": "127.0.0.1"},
            {"Forwarded": "for=127.0.0.1"},
            {"Via": "1.1 proxy"},
        ):
            for method, path in (("GET", "/tables"), ("PUT", "/storage/a"), ("DELETE", "/storage/a")):
                problem(server.call(method, path, token=None, headers=headers), 403)
        assert server.call("GET", "/storage/a", token=None).content == b"x"
        assert server.call("GET", "/tables", token=None, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
        # Jupyter's own routes ask for Jupyter's own token as ever.
        assert server.client.get("/api/kernels").status_code == 403
    finally:
        server.stop()


def test_serve_wants_a_lake(tmp_path):
    server = Server(tmp_path, ["lakehouse.cli", "--lake=nowhere", "serve"])
    assert server.process.wait(30) == 1
    assert "there is no lake at" in server.log
    server.stop()


def test_installing_the_package_enables_it():
    """And turns the extension of Voila off, which its own file of the same folder turns on."""
    folder = Path(sys.prefix, "etc", "jupyter")
    assert (folder / "jupyter_server_config.d" / "voila.json").exists()
    extensions = ExtensionConfigManager(read_config_path=[str(folder)]).get_jpserver_extensions()
    assert extensions["lakehouse.server"] is True
    assert extensions["voila.server_extension"] is False
