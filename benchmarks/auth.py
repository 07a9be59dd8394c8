"""What asking for a token costs: the check alone, and all of a decision."""

from __future__ import annotations

import timeit
from collections.abc import Callable

from _report import Report, main

from lakehouse.auth import Guard
from lakehouse.config import AuthSettings, Secret
from lakehouse.tokens import bearer, new_token

TARGET = 3000  # ns


def measure(quick: bool) -> Report:
    """Nanoseconds: the token alone, a whole decision, and one from the header on."""
    number = 20_000 if quick else 200_000
    token, more = new_token(), tuple(Secret(new_token()) for _ in range(3))
    settings = AuthSettings(
        token=Secret(token), secondary_tokens=more[:1], read_tokens=more[1:], allowed_ips=("127.0.0.0/8", "fd00::/8")
    )
    guard, given, header = Guard(settings, {}), token.encode(), f"Bearer {token}"
    last, wrong = more[-1].reveal().encode(), new_token().encode()

    def cost(work: Callable[[], object]) -> float:
        return min(timeit.repeat(work, number=number, repeat=5)) / number * 1e9

    report = Report("Asking for a token", "an empty call")
    nothing = cost(lambda: None)
    report.add("whose the primary token is", cost(lambda: guard.identify(given)), "ns", at_most=TARGET)
    report.add("whose the last of four is", cost(lambda: guard.identify(last)), "ns")
    report.add("that a token is nobody's", cost(lambda: guard.identify(wrong)), "ns")
    report.add(
        "address, token and scope", cost(lambda: guard.decide("127.0.0.1", given, "write")), "ns", at_most=TARGET
    )
    whole = cost(lambda: guard.decide(guard.client("127.0.0.1"), bearer(header), "write"))
    report.add("the same from the header on", whole, "ns")
    report.add("an empty call", nothing, "ns")
    return report


if __name__ == "__main__":
    main(measure)
