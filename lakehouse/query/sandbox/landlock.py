"""Landlock: a process gives up, for good, every file but those it names, TCP, and signals to others.

The numbers are those of `linux/landlock.h` (https://docs.kernel.org/userspace-api/landlock.html). The three system
calls have the same number on every architecture, and the C library has no names for them.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1  # a flag of the first: only say what the kernel has
_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_OLDEST = (1 << 13) - 1  # what the first version knows

READ = _READ_FILE | _READ_DIR
"""Read files, list folders; nothing may be executed."""
WRITE = READ | _WRITE_FILE | _TRUNCATE | _REMOVE_FILE | _REMOVE_DIR | _MAKE_REG | _MAKE_DIR
"""Also make, change and remove files and folders; no links, devices, sockets, nor moves between folders."""
WRITE_FILE = _READ_FILE | _WRITE_FILE | _TRUNCATE
"""Read and change one file that is there."""
_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE

LEAST = 3
"""The version from which a file that may only be read cannot be emptied either (Linux 6.2)."""
_NETWORK_SINCE, _IOCTL_SINCE, _SCOPES_SINCE = 4, 5, 6
_TCP = 3  # bind, connect
_SCOPES = 3  # abstract unix sockets, signals


def version() -> int:
    """The version of Landlock that this kernel has; 0 where there is none, or it is switched off."""
    return max(0, int(_libc().syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))))


def restrict(rules: Iterable[tuple[str, int]]) -> None:
    """From here on this thread, and those it starts, reach only the paths named, each with its rights.

    Args:
        rules: paths and what is allowed there and below: `READ`, `WRITE`, `WRITE_FILE`. A path that is not there
            is left out.

    Raises:
        OSError: the kernel refuses; nothing is restricted then.
    """
    known = version()
    handled = _OLDEST | _REFER | _TRUNCATE | (_IOCTL if known >= _IOCTL_SINCE else 0)
    fields = [handled]
    if known >= _NETWORK_SINCE:
        fields.append(_TCP)
    if known >= _SCOPES_SINCE:
        fields.append(_SCOPES)
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    ruleset = _call(_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for path, rights in rules:
            _allow(ruleset, path, rights)
        _call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, descriptor)  # packed: twelve bytes
        _call(_ADD, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    answer = _libc().syscall(number, *arguments)
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return int(answer)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
