"""The writer lock: one writer at a time among all processes and threads, first come, first served.

A writer draws a ticket (a number kept in the lock file) and locks the byte that stands for it; it
may write when nobody holds a byte before its own. The kernel frees the bytes of a process that
dies, so neither a crash nor a timeout ever blocks the queue, and nobody can overtake.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lakehouse.errors import DiskFull, LakeUnusable, LockTimeout

LOCK_FILE = "write.lock"
_TICKETS = 1 << 20  # the bytes before it hold the counter and the holder's card; no file grows that far
_TICKETS_END = 1 << 62
_CARD = 32
_FLOCK = "hhqqi"  # struct flock of 64-bit Linux, fcntl_locking(2)
_FAST, _SLOW, _PATIENCE = 0.0005, 0.002, 0.1


class WriterLock:
    """The lock file of one lake.

    Args:
        path: the lock file; created when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread: int | None = None

    def busy(self) -> bool:
        """Whether somebody else than this thread writes, or waits to."""
        if self._thread == threading.get_ident():
            return False
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:
            return False  # nobody wrote yet
        try:
            return _anyone_before(descriptor, _TICKETS_END)
        finally:
            os.close(descriptor)

    @contextmanager
    def hold(self, timeout: float) -> Iterator[float]:
        """Wait for the turn, give the seconds it took, and free the lock on leaving.

        Raises:
            LockTimeout: others were still before us after `timeout` seconds; says who.
        """
        started = time.monotonic()
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full(error) from None
            raise LakeUnusable(f"the writer lock {self.path} cannot be opened: {error.strerror}") from None
        try:
            ticket = _draw(descriptor, started + timeout)
            delay = _FAST
            while ticket is None or _anyone_before(descriptor, ticket):
                waited = time.monotonic() - started
                if waited >= timeout:
                    raise LockTimeout(
                        f"the lake is being written by {self.holder() or 'another process'}; "
                        f"waited {waited:.1f} s (catalog.lock_timeout)",
                        hint="try again, raise catalog.lock_timeout, or end that process",
                    )
                if waited > _PATIENCE:
                    delay = _SLOW
                time.sleep(delay)
                ticket = ticket or _draw(descriptor, started + timeout)
            _leave_card(descriptor)
            self._thread = threading.get_ident()
            yield time.monotonic() - started
        finally:
            if self._thread == threading.get_ident():
                self._thread = None
            try:
                # Closing frees the bytes only when nobody else has the descriptor: a child forked meanwhile may.
                _control(descriptor, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 0, 0)
            finally:
                os.close(descriptor)

    def holder(self) -> str | None:
        """Who wrote last or is writing now, as the lock's card says it; None when it says nothing or that one is gone.

        A writer leaves its card a moment after its turn began: until then the card is its predecessor's.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(_CARD)
                card = json.loads(file.read(4096).split(b"\n", 1)[0])
            if card["host"] == socket.gethostname() and not _alive(card["pid"]):
                return None
            since = time.strftime("%H:%M:%S", time.localtime(card["since"]))
            return f"process {card['pid']} on {card['host']} ({card['command']}) since {since}"
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return None  # nobody wrote yet, or something else was written over it


def _draw(descriptor: int, deadline: float) -> int | None:
    """The next ticket, with its byte locked before anyone can look for it."""
    while not locked(descriptor, 0, 1):
        if time.monotonic() >= deadline:
            return None
        time.sleep(_FAST)
    try:
        ticket = _last(descriptor) + 1
        os.pwrite(descriptor, b"%31d\n" % ticket, 0)
        locked(descriptor, _TICKETS + ticket, 1)
        return ticket
    except OSError as error:
        raise _full(error) from None
    finally:
        _control(descriptor, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 0, 1)


def _last(descriptor: int) -> int:
    """The highest ticket that counts: the counter's or, if something else was written over it, one still in use."""
    try:
        last = int(os.pread(descriptor, _CARD - 1, 0) or b"0")
    except ValueError:
        last = 0
    if not 0 <= last < _TICKETS_END:
        last = 0
    while True:
        kind, _, start, length, _ = _control(descriptor, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, _TICKETS + last + 1, 0)
        if kind == fcntl.F_UNLCK:
            return last
        last = int(start) + int(length) - 1 - _TICKETS


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _leave_card(descriptor: int) -> None:
    command = " ".join(sys.argv[:3])[:200] or "python"
    card = {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": time.time()}
    try:
        os.pwrite(descriptor, json.dumps(card).encode() + b"\n", _CARD)
    except OSError as error:
        raise _full(error) from None


def _full(error: OSError) -> DiskFull:
    return DiskFull(f"the disk is full: the writer lock cannot be written: {error.strerror}", hint="free some space")


def _anyone_before(descriptor: int, ticket: int) -> bool:
    answer = _control(descriptor, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, _TICKETS, ticket)
    return bool(answer[0] != fcntl.F_UNLCK)


def locked(descriptor: int, start: int, length: int) -> bool:
    """Lock bytes of an open file for as long as it is open; False when somebody else has them."""
    try:
        _control(descriptor, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, start, length)
    except BlockingIOError:
        return False
    return True


def _control(descriptor: int, command: int, kind: int, start: int, length: int) -> tuple[Any, ...]:
    request = struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0)
    return struct.unpack(_FLOCK, fcntl.fcntl(descriptor, command, request))
