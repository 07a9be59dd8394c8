"""A notebook's own way to the lake: a real kernel, spoken to as a frontend does."""

from __future__ import annotations

import time
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

ENDLESS = "SELECT count(*) FROM range(100000000000) t(i) WHERE i % 7 = 3"
PATIENCE = 120


class Kernel:
    """One kernel in a folder; `run` gives the reply and what was put out."""

    def __init__(self, folder: Any) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)

    def run(self, code: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return self.finish(self.client.execute(code))

    def finish(self, request: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        outputs = []
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
            outputs.append({"kind": message["msg_type"], **message["content"]})
        while True:
            reply = self.client.get_shell_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"], outputs

    def wait_until_it_runs(self, request: str) -> None:
        """Until the kernel says that it works on the request, and a moment longer for DuckDB to start."""
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") == request and message["msg_type"] == "execute_input":
                break
        time.sleep(1.0)

    def complete(self, code: str) -> dict[str, Any]:
        cursor = code.index("|")
        request = self.client.complete(code.replace("|", "", 1), cursor)
        while True:
            reply = self.client.get_shell_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"]

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    kernel = Kernel(tmp_path_factory.mktemp("kernel"))
    try:
        for code in (
            "%load_ext lakehouse",
            "%lake lake",
            "%%sql\nCREATE TABLE flights AS SELECT i AS id, 'JFK' AS origin FROM range(30) t(i)",
        ):
            reply, outputs = kernel.run(code)
            assert reply["status"] == "ok", outputs
        yield kernel
    finally:
        kernel.close()


def shown(outputs: list[dict[str, Any]]) -> dict[str, str]:
    return next(output["data"] for output in outputs if output["kind"] == "execute_result")


def test_a_result_is_shown_as_text_and_as_a_table(kernel):
    reply, outputs = kernel.run("%%sql\nSELECT id, origin FROM flights ORDER BY id")
    assert reply["status"] == "ok"
    assert shown(outputs)["text/html"].startswith("<table>")
    assert "30 rows (first 20) × 2 columns, snapshot 1" in shown(outputs)["text/plain"]


def test_the_lake_is_shown(kernel):
    _, outputs = kernel.run("%lake")
    assert "1 table" in "".join(output.get("text", "") for output in outputs)
    _, outputs = kernel.run("%lake tables")
    assert "flights" in shown(outputs)["text/html"]


def test_an_error_fails_the_cell_without_a_traceback(kernel):
    reply, outputs = kernel.run("%sql SELECT * FROM flihgts")
    assert reply["status"] == "error"
    assert reply["ename"] == "TableNotFound"
    error = next(output for output in outputs if output["kind"] == "error")
    text = "\n".join(error["traceback"])
    assert "did you mean flights?" in text
    assert "File" not in text
    assert "magics.py" not in text


def test_completion_replies_with_names_and_places(kernel):
    kernel.run("code = 'JFK'")
    reply = kernel.complete("%%sql\nSELECT f.ori| FROM flights f")
    assert reply["matches"] == ["origin"]
    assert (reply["cursor_start"], reply["cursor_end"]) == (15, 18)
    assert kernel.complete("%sql SELECT * FROM fl|")["matches"] == ["flights"]
    assert kernel.complete("%sql SELECT $co|")["matches"] == ["$code"]
    reply = kernel.complete("%%sql\n-- é🙂\nSELECT 'ü', f.| FROM flights f")
    assert reply["matches"] == ["id", "origin"]
    assert reply["cursor_start"] == reply["cursor_end"] == 26


def test_an_interrupt_stops_the_query_and_nothing_else(kernel):
    for code in (f"%sql {ENDLESS}", f"%%sql\nCREATE TABLE never AS {ENDLESS}"):
        request = kernel.client.execute(code)
        kernel.wait_until_it_runs(request)
        kernel.manager.interrupt_kernel()
        reply, _ = kernel.finish(request)
        assert reply["status"] == "error"
        assert reply["ename"] == "KeyboardInterrupt"
        reply, outputs = kernel.run("%sql SELECT count(*) AS n FROM flights")
        assert reply["status"] == "ok"
        assert "30" in shown(outputs)["text/plain"]
    reply, _ = kernel.run("%sql INSERT INTO flights VALUES (31, 'LGA')")  # the writer lock is free again
    assert reply["status"] == "ok"
