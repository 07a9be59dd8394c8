"""Requests made up from the description of the API, by thousands: what the tests do with hundreds."""

from __future__ import annotations

import sys
import time

from _report import ROOT, Report, main, scratch

sys.path.insert(0, str(ROOT / "tests" / "integration"))

from api_cases import api_server, check, described_api
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode


def measure(quick: bool) -> Report:
    """60 requests (8 quick) for every route, half of them malformed; a wrong answer is shown and counted."""
    each = 8 if quick else 60
    quiet = settings(
        max_examples=each,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    sent, wrong, routes = 0, 0, 0
    report = Report("Requests made up from the description of the API", "none may be answered otherwise than described")
    with scratch() as folder, api_server(folder) as server:
        started = time.monotonic()
        for found in described_api().get_all_operations():
            operation = found.ok()
            routes += 1

            @quiet
            @given(case=st.one_of(*map(operation.as_strategy, GenerationMode)))
            def ask(case):
                nonlocal sent
                sent += 1
                check(case, server)

            try:
                ask()
            except Exception as error:  # told, and on with the next route
                wrong += 1
                report.notes.append(f"{operation.method.upper()} {operation.path}: {error}")
        seconds = time.monotonic() - started
    report.add("routes", routes, "")
    report.add("requests", sent, "", at_least=routes * each / 2)
    report.add("routes that answered otherwise than described", wrong, "", at_most=0)
    report.add("requests a second, made up and checked", sent / seconds, "/s")
    return report


if __name__ == "__main__":
    main(measure)
