"""`lakehouse pathway`, as it is typed."""

import json

import pytest
from click.testing import CliRunner

from lakehouse.cli import main


@pytest.fixture
def run(tmp_path):
    def call(*arguments, code=0, stdin=None):
        done = CliRunner().invoke(main, ["--lake", str(tmp_path / "lake"), "pathway", *arguments], input=stdin)
        assert done.exit_code == code, done.output
        return done.output

    return call


def test_a_round_trip(run, tmp_path):
    one = json.loads(run("add", '{"q": "why late"}', "--kind", "sql", "--tag", "a", "--scope", "user=ann", "--json"))
    assert (one["content"], one["tags"], one["scope"]) == ({"q": "why late"}, ["a"], {"user": "ann"})
    uid = one["uid"]
    assert "replay_count: 1" in run("add", "other", "--uid", uid, "--idempotent")
    two = json.loads(run("revise", uid, "-", "--json", stdin='{"q": "why very late"}'))
    assert two["predecessor"] == uid
    run("update", two["uid"], '{"q": "why so late"}', "--if-version", "1")
    assert "why very late" in run("versions", two["uid"])
    found = json.loads(run("search", "late", "--explain", "--json"))
    assert {result["uid"] for result in found["results"]} == {uid, two["uid"]}
    assert found["ranking"] == "hybrid"
    for mode, score in (("lexical", "words"), ("semantic", "cosine")):
        found = json.loads(run("search", "late", "--mode", mode, "--explain", "--json"))
        assert found["ranking"] == mode
        assert score in found["results"][0]["why"]
    run("search", "late", "--mode", "fuzzy", code=2)
    position = str(found["position"])
    run("retire", uid, "--reason", "old")
    assert uid not in run("search", "late")
    assert uid in run("search", "late", "--as-of", position)
    assert uid in run("search", "--retired", "--filter", '{"retired": true}')
    assert [item["uid"] for item in json.loads(run("history", two["uid"], "--json"))["items"]] == [two["uid"], uid]
    run("restore", uid)
    run("feedback", uid, "0.5", "--note", "good")
    assert json.loads(run("get", uid, "--json"))["score"] == 0.5
    assert run("export", str(tmp_path / "out.ndjson")).startswith("2 traces")
    assert run("import", str(tmp_path / "out.ndjson")) == "0 added, 2 were there, 0 revised\n"
    assert json.loads(run("export", str(tmp_path / "out.ndjson"), "--json"))["traces"] == 2
    assert json.loads(run("import", str(tmp_path / "out.ndjson"), "--json")) == {"added": 0, "skipped": 2, "revised": 0}
    assert "before" in run("compact")
    assert set(json.loads(run("compact", "--json"))) == {"bytes_before", "bytes_after"}
    page = json.loads(run("search", "late", "--mode", "lexical", "--limit", "1", "--json"))
    last = json.loads(run("search", "late", "--mode", "lexical", "--cursor", page["next_cursor"], "--json"))
    assert last["next_cursor"] is None
    assert {one["results"][0]["uid"] for one in (page, last)} == {uid, two["uid"]}
    assert page["next_cursor"] in run("search", "late", "--mode", "lexical", "--limit", "1")
    least = str(page["results"][0]["score"])
    found = json.loads(run("search", "late", "--mode", "lexical", "--threshold", least, "--json"))["results"]
    assert [one["uid"] for one in found] == [page["results"][0]["uid"]]
    assert json.loads(run("stats", "--json"))["traces"] == 2
    assert json.loads(run("verify", "--json"))["sound"] is True


def test_errors_are_a_line_and_a_hint(run, tmp_path):
    run("add", "x")
    assert "no trace 'nobody'" in run("get", "nobody", code=1)
    assert "no JSON" in run("search", "--filter", "{", code=2)
    assert "there is no field 'x'" in run("search", "--filter", '{"x": 1}', code=1)
    journal = tmp_path / "lake" / "pathway" / "traces.jsonl"
    journal.write_bytes(journal.read_bytes() + b"damage\n")
    assert "not a JSON record" in run("verify", code=1)
