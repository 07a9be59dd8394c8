"""`lakehouse token new` and `lakehouse auth check`: a token that is kept nowhere, and why the server would decide so."""

import json

import pytest
from click.testing import CliRunner

from lakehouse.cli import main

TOKEN = "a-token-of-some-length"


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setenv("LAKEHOUSE_PATH", str(tmp_path / "lake"))
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)

    def run(*words, stdin=None):
        return CliRunner().invoke(main, list(words), input=stdin)

    return run


def test_new_tokens(shell):
    made = {shell("token", "new").stdout for _ in range(3)}
    assert len(made) == 3
    assert all(len(one.strip()) >= 43 for one in made)


def test_a_decision_is_explained(shell):
    said = shell("auth", "check", "--token", TOKEN, "--ip", "192.0.2.1", "--scope", "write", "--bind", "0.0.0.0")
    assert said.exit_code == 0
    assert "passed  token: the primary token" in said.stdout
    assert "passed  bind: the server may listen on '0.0.0.0'" in said.stdout
    assert TOKEN not in said.output
    refused = shell("auth", "check", "--token", "wrong", "--json")
    assert (refused.exit_code, json.loads(refused.stdout)["status"]) == (1, 401)
    assert shell("auth", "check", "--token", "-", stdin=f"{TOKEN}\n").exit_code == 0
    assert "no token was given" in shell("auth", "check").stdout


def test_the_allowlist_and_proxies_are_those_of_the_lake(shell, monkeypatch):
    monkeypatch.setenv("LAKEHOUSE_AUTH_ALLOWED_IPS", "10.0.0.0/8")
    monkeypatch.setenv("LAKEHOUSE_AUTH_TRUSTED_PROXIES", "127.0.0.1")
    said = shell("auth", "check", "--token", TOKEN, "--forwarded", "1.2.3.4, 10.0.0.1", "--json")
    assert (said.exit_code, json.loads(said.stdout)["client"]) == (0, "10.0.0.1")
    said = shell("auth", "check", "--token", TOKEN, "--forwarded", "10.0.0.1, 1.2.3.4", "--json")
    assert (said.exit_code, json.loads(said.stdout)["status"]) == (1, 403)


def test_what_cannot_be_used_is_said(shell, monkeypatch):
    monkeypatch.setenv("AUTH_TOKEN", "short")
    said = shell("auth", "check", "--token", "short", "--bind", "::")
    assert said.exit_code == 1
    assert "at least 16 characters" in said.stdout
    assert "refused (403)" in said.stdout
    monkeypatch.setenv("AUTH_TOKEN", "")
    said = shell("auth", "check")
    assert said.exit_code == 1
    assert "AUTH_TOKEN is empty" in said.stderr


def test_settings_never_show_a_token(shell, monkeypatch):
    monkeypatch.setenv("LAKEHOUSE_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("LAKEHOUSE_AUTH_READ_TOKENS", f"{TOKEN}-2,{TOKEN}-3")
    for said in (shell("config"), shell("config", "--json")):
        assert said.exit_code == 0
        assert "***" in said.stdout
        assert TOKEN not in said.output
