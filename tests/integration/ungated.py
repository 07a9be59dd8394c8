"""A worker without its gate, so that a test sees what the kernel alone holds. Nothing in the product can start it."""

from __future__ import annotations

from lakehouse.query.sandbox import worker


class Open:
    """Where the gate stands in a real worker: lets everything pass."""

    def __init__(self, _parsing, _names, **_options) -> None:
        pass

    def read(self, sql: str):
        from lakehouse.query.gate import Passed

        return Passed(sql, "read", ())

    def write(self, sql: str):
        from lakehouse.query.gate import Passed

        return Passed(sql, "write", ())


def main(rows: int, control: int) -> None:
    """The worker's own main, with the gate's place taken."""
    opened = worker.opened

    def ungated(setup):
        from lakehouse.query.sandbox import changing, reading

        reading.Gate = changing.Gate = Open
        return opened(setup)

    worker.opened = ungated
    worker.main(rows, control)
