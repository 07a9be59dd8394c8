"""What goes over the pair of sockets comes out as it went in, and what may not come is refused."""

from __future__ import annotations

import socket
import struct
import threading
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.errors import LakehouseError, ParameterFault, QueryError, SqlRefused
from lakehouse.query.sandbox import seccomp, wire
from lakehouse.query.sandbox.wire import Channel, Fault, packed, raised, unpacked

PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.dates()
    | st.datetimes() | st.times() | st.timedeltas() | st.decimals(allow_nan=False) | st.uuids()
)  # fmt: skip
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@given(VALUES)
def test_values_come_out_as_they_went_in(value):
    through = unpacked(msgspec.msgpack.decode(msgspec.msgpack.encode(packed(value))))
    assert through == value
    assert type(through) is type(value)


def test_a_mapping_that_looks_like_a_packed_value_is_a_mapping():
    for value in ({"UUID": "12345678-1234-5678-1234-567812345678"}, {"int": "1"}, {"dict": []}, {}):
        assert unpacked(packed(value)) == value
    assert unpacked(packed([UUID(int=1)])) == [UUID(int=1)]
    with pytest.raises(ParameterFault):
        packed({"a": {1, 2}})


def test_frames_come_whole_and_in_order():
    one, other = (Channel(end) for end in socket.socketpair())
    sent = [(wire.ROWS, bytes([number % 256]) * size) for number, size in enumerate((0, 1, 100, 5_000_000))]
    thread = threading.Thread(target=lambda: [one.send(kind, content) for kind, content in sent])
    thread.start()
    assert [(kind, bytes(content)) for kind, content in (other.receive() for _ in sent)] == sent
    thread.join()
    one.close()
    with pytest.raises(EOFError):
        other.receive()


def test_a_frame_that_says_it_is_huge_is_refused_before_it_is_read():
    end, other = socket.socketpair()
    end.sendall(struct.pack("<BQ", wire.ROWS, 1 << 40))
    with pytest.raises(QueryError, match="takes more than"):
        Channel(other).receive()
    end.close()


def test_errors_keep_their_class():
    error = raised(Fault("sql_refused", "no", "hint"))
    assert (type(error), error.message, error.hint) == (SqlRefused, "no", "hint")
    assert type(raised(Fault("never heard of", "x"))) is QueryError
    assert isinstance(raised(Fault("conflict", "x")), LakehouseError)


def run(program, architecture: int, number: int, argument: int = 0) -> int:
    """What a filter answers for one call: the machine of classic BPF, as far as the filter uses it."""
    data = struct.pack("<iIQ6Q", number, architecture, 0, argument, 0, 0, 0, 0, 0)
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x06:
            return value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_on_every_processor_it_knows(monkeypatch, machine):
    monkeypatch.setattr(seccomp.platform, "machine", lambda: machine)
    program = seccomp._program(4321)
    architecture, column = seccomp._MACHINES[machine]
    refuse, allow = 0x00050001, 0x7FFF0000
    for name, numbers in seccomp._REFUSED.items():
        if numbers[column] is not None:
            assert run(program, architecture, numbers[column]) == refuse, name
    used = {"read": (0, 63), "write": (1, 64), "mmap": (9, 222), "futex": (202, 98), "openat": (257, 56),
            "pread64": (17, 67), "fsync": (74, 82), "recvfrom": (45, 207), "sendto": (44, 206)}  # fmt: skip
    for name, numbers in used.items():
        assert run(program, architecture, numbers[column]) == allow, name
    clone, tgkill = seccomp._CLONE[column], seccomp._TGKILL[column]
    assert run(program, architecture, clone, 0x00010F00) == allow  # a thread
    assert run(program, architecture, clone, 0x11) == refuse  # a process
    assert run(program, architecture, seccomp._CLONE3[column]) == 0x00050026
    assert run(program, architecture, tgkill, 4321) == allow
    assert run(program, architecture, tgkill, 1) == refuse
    assert run(program, architecture ^ 1, used["read"][column]) == 0x80000000
    if machine == "x86_64":
        assert run(program, architecture, 0x40000000) == refuse
    assert len(program) < 4096
