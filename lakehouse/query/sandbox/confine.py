"""What a worker gives up before it reads a byte of anybody's SQL, and whether this machine can keep it to that."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from lakehouse.query.sandbox import landlock, seccomp

Level = Literal["full", "gate-only", "none"]

_PDEATHSIG, _NO_NEW_PRIVS, _CAPBSET_DROP = 1, 38, 24  # prctl(2)
_CAPABILITIES_3 = 0x20080522  # capset(2), version of its structs
_DAC_OVERRIDE = 1  # reading a lake of another owner as root: Landlock says which files, still
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/zero")
_MACHINE = (
    "/proc/self/cgroup",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
)  # DuckDB 1.5.5 ends the process without the first


@dataclass(frozen=True, slots=True)
class Protection:
    """What stands between a stranger's SQL and this machine."""

    level: Level
    """`full`: the kernel and the gate; `gate-only`: the gate alone, as the settings allow; `none`: it is refused."""
    reason: str
    """Why so, in words."""


class Policy(msgspec.Struct, frozen=True):
    """What one worker keeps."""

    kernel: bool
    """Whether the kernel must hold it; False only where the settings allow the gate alone."""
    parent: int
    """The process without which it may not live."""
    read: tuple[str, ...]
    """Files and folders it may read, beside Python and the libraries."""
    write: tuple[str, ...]
    """Folders it may write."""
    change: tuple[str, ...]
    """Files, there already, whose content it may change."""
    memory: int
    """Bytes of private memory."""
    file_size: int
    """Bytes of any file it writes."""
    open_files: int
    cpu: int
    """Seconds of processor time in its whole life."""


def protection(setting: str) -> Protection:
    """What this machine can do, under the setting `query.sandbox`."""
    missing = _missing()
    if missing is None:
        return Protection("full", f"Landlock {landlock.version()} and seccomp hold each worker process")
    if setting == "gate-only":
        return Protection("gate-only", f"{missing}; query.sandbox = 'gate-only' allows the gate alone")
    return Protection("none", f"{missing}; query.sandbox = 'gate-only' would allow the gate alone")


def _missing() -> str | None:
    if sys.platform != "linux":
        return f"{sys.platform} has no Landlock"
    version = landlock.version()
    if version == 0:
        return "this kernel has no Landlock, or it is switched off"
    if version < landlock.LEAST:
        return f"this kernel has Landlock {version}, and {landlock.LEAST} (Linux 6.2) is needed"
    return None if seccomp.available() else "there is no seccomp filter for this machine"


def apply(policy: Policy) -> None:
    """Give up everything that the policy does not name; there is no way back, for this process and its threads.

    Must be called while the process has one thread: the kernel restricts threads, not processes.

    Raises:
        OSError: the kernel refuses something that the policy asks for. Such a process must end.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        _prctl(libc, _PDEATHSIG, signal.SIGKILL)
        if os.getppid() != policy.parent:  # it died before the line above
            os._exit(1)
        _prctl(libc, _NO_NEW_PRIVS, 1)
    _limit(policy)
    if not policy.kernel:
        return
    if (threads := len(os.listdir("/proc/self/task"))) != 1:
        raise OSError(f"the worker has {threads} threads before it is confined")
    _drop_capabilities(libc)
    own = [(path, landlock.READ) for path in (*libraries(), *_DEVICES, *_MACHINE, *policy.read)]
    writable = [(path, landlock.WRITE) for path in policy.write]
    changed = [(path, landlock.WRITE_FILE) for path in policy.change]
    landlock.restrict([*own, ("/dev/null", landlock.WRITE_FILE), *writable, *changed])
    seccomp.restrict()


def libraries() -> list[str]:
    """Where Python, its packages and the system's libraries are."""
    known = sysconfig.get_paths()
    package = Path(__file__).resolve().parents[3] / "lakehouse"
    found = [known[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [os.path.join(prefix, lib) for prefix in (sys.prefix, sys.base_prefix) for lib in ("lib", "lib64")]
    found += [str(package), *(entry for entry in sys.path if os.path.basename(entry) == "site-packages")]
    if sys.pycache_prefix is not None:
        found.append(sys.pycache_prefix)
    return [*dict.fromkeys(found), *_SYSTEM]


def _limit(policy: Policy) -> None:
    wanted = {
        resource.RLIMIT_DATA: policy.memory,
        resource.RLIMIT_FSIZE: policy.file_size,
        resource.RLIMIT_NOFILE: policy.open_files,
        resource.RLIMIT_CPU: policy.cpu,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # Of processor time the soft limit ends the process with a signal that says so, the hard one just ends it.
        resource.setrlimit(kind, (max(0, value - 5) if kind == resource.RLIMIT_CPU else value, value))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """All of root's powers but that over the modes of files; nobody else has any."""
    header, held = struct.pack("=Ii", _CAPABILITIES_3, 0), ctypes.create_string_buffer(24)
    _checked(libc.capget(header, held), "capget")
    # In a container root may have lost it.
    kept = struct.unpack("=6I", held)[1] & (1 << _DAC_OVERRIDE) if os.geteuid() == 0 else 0
    for number in range(64):
        if not kept & (1 << number):
            libc.prctl(_CAPBSET_DROP, number, 0, 0, 0)  # EPERM for who has none, EINVAL past the last
    _checked(libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)), "capset")


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    _checked(libc.prctl(option, value, 0, 0, 0), f"prctl({option})")


def _checked(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
