"""The writer lock: one at a time, in the order of asking, freed by whatever ends its holder."""

import threading
import time

import pytest

from lakehouse.catalog.lock import WriterLock
from lakehouse.errors import DiskFull, LakeUnusable, LockTimeout

HOLD = """
from pathlib import Path
from lakehouse.catalog.lock import WriterLock
with WriterLock(Path(args[0])).hold(30):
    say("held")
    sys.stdin.readline()
say("freed")
"""
QUEUE = """
from pathlib import Path
from lakehouse.catalog.lock import WriterLock
with WriterLock(Path(args[0])).hold(60):
    with open(args[1], "a") as file:
        file.write(args[2] + "\\n")
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "write.lock"


def drawn(path):
    """The last ticket that was drawn."""
    return int(path.read_bytes()[:31])


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_held_by_one_process_at_a_time_and_the_error_names_it(path, child):
    holder = child(HOLD, path)
    assert holder.hear() == "held"
    with pytest.raises(LockTimeout, match=rf"process {holder.pid} .*catalog\.lock_timeout"):
        with WriterLock(path).hold(0.2):
            pass
    holder.go()
    assert holder.end() == ["freed"]
    with WriterLock(path).hold(10):
        pass


def test_a_killed_holder_frees_it(path, child):
    holder = child(HOLD, path)
    assert holder.hear() == "held"
    holder.kill()
    with WriterLock(path).hold(10):
        pass


def test_processes_are_served_in_the_order_they_asked(path, child, tmp_path):
    order = tmp_path / "order"
    waiting = []
    with WriterLock(path).hold(10):
        for number in range(4):
            before = drawn(path)
            waiting.append(child(QUEUE, path, order, number))
            until(lambda before=before: drawn(path) > before)
        assert not order.exists()
    for one in waiting:
        one.end()
    assert order.read_text().split() == ["0", "1", "2", "3"]


def test_a_killed_waiter_does_not_hold_up_those_behind_it(path, child, tmp_path):
    order = tmp_path / "order"
    waiting = []
    with WriterLock(path).hold(10):
        for number in range(3):
            before = drawn(path)
            waiting.append(child(QUEUE, path, order, number))
            until(lambda before=before: drawn(path) > before)
        waiting[0].kill()
    for one in waiting[1:]:
        one.end()
    assert order.read_text().split() == ["1", "2"]


def test_threads_of_one_process_take_turns_in_the_order_they_asked(path):
    order, inside = [], []

    def work(number):
        with WriterLock(path).hold(60):
            inside.append(number)
            assert len(inside) == 1
            order.append(number)
            inside.remove(number)

    threads = []
    with WriterLock(path).hold(10):
        for number in range(6):
            before = drawn(path)
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            until(lambda before=before: drawn(path) > before)
    for thread in threads:
        thread.join(60)
    assert order == list(range(6))


def test_a_waiter_that_gave_up_leaves_no_trace(path):
    with WriterLock(path).hold(10):
        for _ in range(3):
            with pytest.raises(LockTimeout), WriterLock(path).hold(0.05):
                pass
    with WriterLock(path).hold(10) as waited:
        assert waited >= 0


def test_an_error_inside_frees_it(path):
    with pytest.raises(ZeroDivisionError), WriterLock(path).hold(10):
        raise ZeroDivisionError
    with WriterLock(path).hold(10):
        pass


def test_a_child_forked_meanwhile_does_not_keep_it(path, child):
    """Notebooks fork (multiprocessing): the copy of the descriptor must not hold the lock."""
    forker = child(
        """
        import os, time
        from pathlib import Path
        from lakehouse.catalog.lock import WriterLock
        with WriterLock(Path(args[0])).hold(10):
            pid = os.fork()
            if pid == 0:
                sys.stdin.close(); os.close(1); os.close(2)
                time.sleep(120)
                os._exit(0)
        say(pid)
        try:
            with WriterLock(Path(args[0])).hold(5):
                say("free")
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        """,
        path,
    )
    assert isinstance(forker.hear(), int)
    assert forker.hear() == "free"
    forker.end()


def test_nobody_held_it_yet(path):
    assert WriterLock(path).holder() is None


def test_no_folder_for_it(tmp_path):
    with pytest.raises(LakeUnusable, match="cannot be opened"), WriterLock(tmp_path / "none" / "write.lock").hold(1):
        pass


def test_a_full_disk_is_said(path, child):
    process = child(
        """
        import resource, signal
        from pathlib import Path
        from lakehouse.catalog.lock import WriterLock
        from lakehouse.errors import DiskFull
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for limit in (0, 32):  # no room for a ticket; room for a ticket but not for the holder's card
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                with WriterLock(Path(args[0])).hold(5):
                    raise SystemExit("it was granted")
            except DiskFull as error:
                say(str(error))
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        """,
        path,
    )
    first, second = process.end()
    assert "cannot be written" in first
    assert DiskFull.code == "disk_full"
    assert "cannot be written" in second


@pytest.mark.parametrize("content", [b"garbage" * 20, b"%31d\n" % -7, b"9" * 31 + b"\n", b"", b"0" * 31 + b"\n[1]\n"])
def test_something_else_written_over_it_neither_stops_writers_nor_lets_them_pass(path, child, content):
    holder = child(HOLD, path)
    assert holder.hear() == "held"
    path.write_bytes(content)
    with pytest.raises(LockTimeout, match="another process"), WriterLock(path).hold(0.1):
        pass
    holder.go()
    holder.end()
    with WriterLock(path).hold(10):
        assert drawn(path) > 0
    assert WriterLock(path).holder()


def test_a_writer_that_is_gone_is_not_named(path, child):
    last = child(HOLD, path)
    last.hear()
    card = path.read_bytes()
    assert f"process {last.pid} " in WriterLock(path).holder()
    last.kill()
    holder = child(HOLD, path)
    assert holder.hear() == "held"
    path.write_bytes(path.read_bytes()[:32] + card[32:])  # as if it had not left its card yet
    with pytest.raises(LockTimeout, match="another process"), WriterLock(path).hold(0.05):
        pass
