"""What a server keeps: its tokens out of the environment, its guard over a reload, its lake when it is asked for."""

import os
from types import SimpleNamespace

import pytest

import lakehouse
from lakehouse.auth import Principal
from lakehouse.errors import BindRefused, ConfigError, LakehouseError, LakeUnusable, SandboxUnavailable
from lakehouse.query.sandbox.confine import Protection
from lakehouse.server.extension import audit, check_files
from lakehouse.server.launch import arguments
from lakehouse.server.routes.queries import sandbox_of
from lakehouse.server.service import Service
from lakehouse.server.stop import stops_the_start

TOKEN = "a-token-of-some-length"


@pytest.fixture
def service(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("LAKEHOUSE_AUTH_READ_TOKENS", "reader-token-0000001")
    made = Service(tmp_path / "lake")
    yield made
    made.close()


def test_tokens_leave_the_environment_and_a_reload_still_knows_them(service):
    assert "AUTH_TOKEN" not in os.environ
    assert "LAKEHOUSE_AUTH_READ_TOKENS" not in os.environ
    assert service.reload().identify(TOKEN.encode()).name == "primary"
    assert service.guard.identify(b"reader-token-0000001").name == "read 1"


def test_a_reload_that_cannot_be_keeps_what_there_was(service):
    service.lake(create=True)
    before, reloads = service.guard, []
    service.on_reload = lambda: reloads.append(1)
    (service.folder / "lakehouse.toml").write_text("[auth]\nallowed_ips = ['nonsense']\n")
    with pytest.raises(ConfigError, match="allowed_ips"):
        service.reload()
    service.host = "0.0.0.0"
    (service.folder / "lakehouse.toml").write_text("[auth]\ntoken = 'short'\n")
    with pytest.raises(BindRefused, match="16 characters"):
        service.reload()
    assert service.guard is before
    assert reloads == []
    (service.folder / "lakehouse.toml").write_text("[auth]\ntoken = 'another-token-000001'\n")
    service.guard.attempts.failed("192.0.2.1")
    assert service.reload().attempts.total == 1, "failures are not forgotten"
    assert reloads == [1]
    assert service.guard.fingerprint != before.fingerprint


def test_the_lake_is_made_by_writes_only(service):
    with pytest.raises(LakeUnusable):
        service.lake()
    assert not service.folder.exists()
    made = service.lake(create=True)
    assert service.lake() is made
    assert isinstance(made, lakehouse.Lakehouse)


def test_jupyters_token_must_be_another(service):
    service.jupyter_token = TOKEN
    with pytest.raises(ConfigError, match="must never open kernels") as caught:
        service.check()
    assert TOKEN not in str(caught.value)


def test_the_gate_alone_holds_sql_for_this_machine_only(service):
    service.lake(create=True)
    call = SimpleNamespace(service=service, lake=service.lake(), principal=Principal("primary", frozenset({"read"})))
    for level, host, served in [
        ("full", "0.0.0.0", True), ("gate-only", "127.0.0.1", True), ("gate-only", "0.0.0.0", False),
        ("none", "127.0.0.1", False),
    ]:  # fmt: skip
        service.__dict__["protection"], service.host = Protection(level, "no Landlock here"), host
        assert service.sql_served is served
        if level == "gate-only" and not served:
            with pytest.raises(SandboxUnavailable, match="no Landlock here"):
                sandbox_of(call)
        elif served:
            assert sandbox_of(call).principal == "primary"


def test_every_failure_stops_the_start(capsys):
    for error, line in [
        (LakehouseError("no", hint="do this"), "lakehouse: no; do this\n"),
        (LakehouseError("no"), "lakehouse: no\n"),
        (ValueError("odd"), ""),
    ]:

        @stops_the_start
        def fail(error=error):
            raise error

        with pytest.raises(SystemExit) as caught:
            fail()
        assert caught.value.code == 2
        assert capsys.readouterr().err == line


def test_a_handler_of_another_kind_among_the_routes_stops_the_start():
    from tornado.web import Application, RequestHandler

    app = Application([(r"/elsewhere", RequestHandler)])
    audit(app.default_router.rules, "/lakehouse")
    app.add_handlers(".*", [(r"/lakehouse/v1/open", RequestHandler)])
    with pytest.raises(LakehouseError, match="which has no label"):
        audit(app.default_router.rules, "/lakehouse")


def test_a_configuration_file_that_was_not_loaded_stops_the_start(tmp_path):
    app = SimpleNamespace(
        config_file="",
        config_file_name="jupyter_server_config",
        config_file_paths=[str(tmp_path)],
        loaded_config_files=[],
    )
    check_files(app)
    file = tmp_path / "jupyter_server_config.json"
    file.write_text("{")
    with pytest.raises(ConfigError, match=r"jupyter_server_config.json cannot be loaded"):
        check_files(app)
    app.loaded_config_files = [str(file)]
    check_files(app)
    app.config_file = str(tmp_path / "nowhere.py")
    with pytest.raises(ConfigError, match=r"nowhere.py cannot be loaded"):
        check_files(app)


def test_the_defaults_of_a_server_are_safe():
    found = arguments("127.0.0.1", 1234, hostnames=["lake.example"], browser=False, files=None, lab=False)
    assert "--ServerApp.ip=127.0.0.1" in found
    assert "--ServerApp.trust_xheaders=False" in found
    assert "--ServerApp.allow_unauthenticated_access=False" in found
    assert "--ServerApp.local_hostnames=lake.example" in found
    assert not [one for one in found if "allow_remote_access" in one or "allow_origin" in one]
    assert "--ServerApp.max_body_size=1048576" in found  # what Jupyter keeps in memory of whoever sends it
    lab = arguments("127.0.0.1", 1234, hostnames=[], browser=False, files=None, lab=True)
    assert not [one for one in lab if "max_body_size" in one]  # notebooks are saved whole
