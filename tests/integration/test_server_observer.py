"""The observer over HTTP: events taken, asked for, and listened to."""

import json
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from serving import PRIMARY, READER, TOKENS, V1, Server, bearer, problem

import lakehouse
from lakehouse.observer.model import Event, Problem

RING = 5
LISTENERS = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("observing")
    lakehouse.open(folder / "lake").close()
    (folder / "lake" / "lakehouse.toml").write_text(
        f"[observer]\nring_size = {RING}\nsync = 'never'\nlisteners = {LISTENERS}\n"
    )
    running = Server(folder, ["lakehouse.cli", "serve"], TOKENS)
    try:
        yield running.ready()
        assert "Traceback" not in running.log, running.log
    finally:
        running.stop()


@pytest.fixture(scope="module")
def here(server):
    with lakehouse.open(server.folder / "lake") as lake:
        yield lake.observer


def post(server, *events, status=202, **given):
    answer = server.call("POST", "/observer/events", json={"events": list(events)}, **given)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_one_or_a_batch_is_taken_also_when_the_ring_is_full(server, here):
    """ADR-005: a full ring lets go of its oldest, and still takes."""
    before = server.call("GET", "/observer/stats").json()["counters"]
    one = post(server, {"run": "full", "status": "done", "workflow": "w", "node": "a", "elapsed": 0.5})
    assert (one["accepted"], one["persisted"]) == (1, True)
    many = post(server, *({"run": "full", "status": "done", "node": f"b{n}"} for n in range(RING + 3)))
    assert (many["accepted"], many["seq"]) == (RING + 3, one["seq"] + RING + 3)
    again = post(server, {"run": "full", "status": "failed", "node": "c", "error": {"type": "E", "message": "m"}})
    assert (again["accepted"], again["evicted"]) == (1, 1)
    after = server.call("GET", "/observer/stats").json()["counters"]
    assert after["accepted"] - before["accepted"] == RING + 5
    assert after["persisted"] == after["accepted"]
    assert after["evicted"] == max(0, after["accepted"] - RING)
    nodes = [event.node for event in here.events(run="full", limit=50)]
    assert nodes == ["c", *(f"b{n}" for n in reversed(range(RING + 3))), "a"]


def test_a_request_that_is_sent_again_is_done_once(server, here):
    """Its sender cannot know whether a lost answer had been given."""
    sent = {"headers": {"Idempotency-Key": "once-and-no-more"}}
    first, second = (post(server, {"run": "once", "status": "done"}, **sent) for _ in range(2))
    assert first == second
    assert len(here.events(run="once")) == 1


def test_events_and_stats_say_what_the_lake_says(server, here):
    here.record(Event(run="here", workflow="v", node="n", mode="sql", status="timeout", error=Problem("T", "slow")))
    post(server, {"run": "there", "workflow": "v", "node": "n", "mode": "sql", "status": "done", "elapsed": 2})
    found = server.call("GET", "/observer/events?workflow=v&success=false").json()["events"]
    assert found == [json.loads(json.dumps(event.to_dict())) for event in here.events(run="here")]
    newest = server.call("GET", "/observer/events?workflow=v").json()["events"]
    assert [(one["run"], one["principal"]) for one in newest] == [("there", "primary"), ("here", None)]
    after = server.call("GET", f"/observer/events?since={found[0]['seq']}&oldest=true").json()["events"]
    assert [one["run"] for one in after] == ["there"]
    (one,) = server.call("GET", "/observer/stats?workflow=v").json()["stats"]
    (same,) = here.stats(workflow="v")
    assert (one["runs"], one["failures"], one["p50"], one["last_error"]["message"]) == (2, 1, 2.0, "slow")
    assert (same.runs, same.failures, same.p50, same.last_error.message) == (2, 1, 2.0, "slow")
    assert server.call("GET", "/observer/verify").json()["sound"] is True
    assert server.call("GET", "/ready").json()["checks"]["observer"]["ok"] is True


def test_who_sent_an_event_is_not_for_the_sender_to_say(server, here):
    post(
        server,
        {"run": "forged", "status": "done", "principal": "somebody", "seq": 1, "recorded": "2000-01-01T00:00:00Z"},
    )
    (event,) = here.events(run="forged")
    assert event.principal == "primary"
    assert event.seq > 1
    assert event.recorded.year > 2000


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"events": [{"run": "x", "status": "failed"}]}, "event_invalid"),
        ({"events": [{"run": "x", "status": "done", "error": {"type": "E"}}]}, "event_invalid"),
        ({"events": [{"run": "x", "status": "failed", "success": True, "error": {"type": "E"}}]}, "event_invalid"),
        ({"events": [{"run": "x", "status": "good"}]}, "request_invalid"),
        ({"events": [{"run": "x", "status": "done", "colour": 1}]}, "request_invalid"),
        ({"events": [{"status": "done"}]}, "request_invalid"),
        ({"events": []}, "request_invalid"),
        ({}, "request_invalid"),
    ],
)
def test_what_is_no_event_is_refused_whole(server, here, body, code):
    count = here.verify().records
    problem(server.call("POST", "/observer/events", json=body), 400, code)
    assert here.verify().records == count


def test_scopes_and_parameters(server):
    good = {"events": [{"run": "x", "status": "done"}]}
    problem(server.call("POST", "/observer/events", token=READER, json=good), 403, "forbidden")
    problem(server.call("GET", "/observer/stream", token=None), 401, "unauthenticated")
    assert server.call("GET", "/observer/events", token=READER).status_code == 200
    problem(server.call("GET", "/observer/events?status=good"), 400, "request_invalid")
    problem(server.call("GET", "/observer/events?since=someday"), 400, "filter_invalid")
    problem(server.call("GET", "/observer/events?limit=0"), 400, "request_invalid")
    problem(server.call("GET", "/observer/stream", headers={"Last-Event-ID": "x"}), 400, "request_invalid")
    assert server.call("HEAD", "/observer/stream").headers["Content-Type"] == "text/event-stream"


# listening


class Listener:
    """One connection to the stream, read in a thread."""

    def __init__(self, server, query="", **headers):
        self.heard, self.first = [], threading.Event()
        self._client = httpx.Client(base_url=server.url + V1, trust_env=False, timeout=60)
        self._headers = {**bearer(PRIMARY), **headers}
        self._thread = threading.Thread(target=self._listen, args=(f"/observer/stream{query}",), daemon=True)
        self._thread.start()
        assert self.first.wait(30)

    def _listen(self, path):
        try:
            with self._client.stream("GET", path, headers=self._headers) as answer:
                self.status, self.type = answer.status_code, answer.headers["Content-Type"]
                for line in answer.iter_lines():
                    self.first.set()
                    if line.startswith("data: "):
                        self.heard.append(json.loads(line[6:]))
        except (httpx.HTTPError, OSError):
            pass
        finally:
            self.first.set()

    def until(self, count):
        end = time.monotonic() + 30
        while len(self.heard) < count and time.monotonic() < end:
            time.sleep(0.005)
        return [one["run"] for one in self.heard]

    def close(self):
        self._client.close()


def test_a_listener_hears_what_this_server_and_other_processes_record(server, here):
    listener = Listener(server, "?workflow=heard")
    assert (listener.status, listener.type) == (200, "text/event-stream")
    here.record(Event(run="1", workflow="heard", status="done"))
    here.record(Event(run="x", workflow="other", status="done"))
    assert listener.until(1) == ["1"]
    post(server, {"run": "2", "workflow": "heard", "status": "not_run", "reason": "1 failed"})
    assert listener.until(2) == ["1", "2"]
    assert listener.heard[1]["reason"] == "1 failed"
    listener.close()
    again = Listener(server, "?workflow=heard", **{"Last-Event-ID": str(listener.heard[0]["seq"])})
    assert again.until(1) == ["2"]
    again.close()
    from_the_start = Listener(server, "?workflow=heard&since=0")
    assert from_the_start.until(2) == ["1", "2"]
    from_the_start.close()


def files(server):
    return len(list(Path("/proc", str(server.process.pid), "fd").iterdir()))


def test_more_listeners_than_threads_hold_none_and_leave_nothing(server, here):
    """A hundred connections that hear nothing: every other route answers, and when they go their files are closed."""
    server.call("GET", "/observer/events")
    before = files(server)
    address = ("127.0.0.1", server.port)
    request = (
        f"GET {V1}/observer/stream?run=never HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {PRIMARY}\r\n\r\n"
    )
    open_ones = [socket.create_connection(address, timeout=30) for _ in range(100)]
    for one in open_ones:
        one.sendall(request.encode())
    for one in open_ones:
        assert one.recv(15).startswith(b"HTTP/1.1 200")
    assert files(server) >= before + 100
    listener = Listener(server, "?run=amid")
    post(server, {"run": "amid", "status": "done"})
    assert listener.until(1) == ["amid"]
    while len(open_ones) < LISTENERS:  # the one above listens as well, so this many never get in
        open_ones.append(socket.create_connection(address, timeout=30))
        open_ones[-1].sendall(request.encode())
        if open_ones[-1].recv(15).startswith(b"HTTP/1.1 503"):
            break
    one_more = server.call("GET", "/observer/stream")
    problem(one_more, 503, "too_many_listeners")
    assert int(one_more.headers["Retry-After"]) > 0
    listener.close()
    assert server.call("GET", "/observer/events?run=amid").json()["events"]
    for one in open_ones:
        one.close()
    end = time.monotonic() + 30
    while files(server) > before + 5 and time.monotonic() < end:
        time.sleep(0.02)
    assert files(server) <= before + 5
    again = Listener(server, "?run=again")
    assert again.status == 200
    again.close()
    assert "Traceback" not in server.log


def test_a_listener_does_not_keep_the_server_from_stopping(server):
    """The last test of this module: the server is gone after it."""
    listener = Listener(server)
    server.process.terminate()
    assert server.process.wait(20) is not None
    listener.close()
    assert "Traceback" not in server.log, server.log
