"""Who may use a server: tokens, addresses, and where it may listen. Pure: it knows no web framework (ADR-003, ADR-006).

A `Guard` is made of the settings and the environment once, and again by a reload. Every layer that is configured must
pass: the address, then the token, then the token's scope. Tokens are kept and compared as SHA-256 digests, so no
comparison takes another time for another length, and the guard has no token that could be shown.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from math import ceil
from typing import Literal

import msgspec

from lakehouse.config import AuthSettings
from lakehouse.errors import (
    AccessError,
    BindRefused,
    ConfigError,
    Forbidden,
    TooManyAttempts,
    Unauthenticated,
)
from lakehouse.tokens import SHORTEST, tokens_of

Scope = Literal["read", "write"]
Network = IPv4Network | IPv6Network
Resolver = Callable[[str], Iterable[str]]

_ADDRESSES = 10_000  # whose failures are remembered
_MAPPED = IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    name: str
    """Such as `primary`, `secondary 1`, `read 2`, `development`; never a token."""
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether it has that scope."""
        return scope in self.scopes


_ALL: frozenset[Scope] = frozenset({"read", "write"})
_READ: frozenset[Scope] = frozenset({"read"})
DEVELOPMENT = Principal("development", _ALL)
"""Everybody on this machine, while no token is configured."""


class Layer(msgspec.Struct, frozen=True):
    """What one layer said."""

    name: Literal["address", "attempts", "token", "scope"]
    passed: bool
    why: str


class Decision(msgspec.Struct, frozen=True):
    """Whether a request may pass, and what each layer that was asked said."""

    principal: Principal | None
    """Who it is, when all layers passed."""
    layers: tuple[Layer, ...]
    error: AccessError | None
    """What refused it."""

    @property
    def allowed(self) -> bool:
        """Whether every layer passed."""
        return self.error is None


def networks_of(entries: Iterable[str], where: str) -> tuple[Network, ...]:
    """Addresses and CIDR networks as networks; IPv4 in IPv6 clothes becomes IPv4.

    Raises:
        ConfigError: an entry is no network; names it.
    """
    found: list[Network] = []
    for entry in entries:
        try:
            network = ip_network(entry.strip())
        except ValueError as error:
            raise ConfigError(f"{where}: {error}", hint="such as 10.1.0.0/16, 192.0.2.7 or fd00::/8") from None
        if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
            network = IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
        found.append(network)
    return tuple(found)


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """The address a text means, with a port, brackets or zone taken off and IPv4 unwrapped; None when it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


class Attempts:
    """Wrong tokens by address; beyond a number within a window the address has to wait.

    Args:
        most: how many there may be.
        window: seconds after which one is forgotten.
        clock: the time in seconds.

    The memory is bounded: of more than 10,000 addresses the one that failed longest ago is forgotten.
    """

    def __init__(self, most: int, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        """Wrong tokens since the start."""
        self.most = most
        self.window = window
        self._clock = clock
        self._failed: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def failed(self, address: str) -> int:
        """Count a wrong token; returns how many there are of this address now."""
        now, place = self._clock(), _place(address)
        with self._lock:
            self.total += 1
            times = self._recent(place, now)
            times.append(now)
            self._failed[place] = times[-self.most :]
            self._failed.move_to_end(place)
            if len(self._failed) > _ADDRESSES:
                self._failed.popitem(last=False)
            return len(times)

    def wait(self, address: str) -> float:
        """Seconds this address has to wait; 0 when it has not."""
        if not self._failed:
            return 0.0
        now, place = self._clock(), _place(address)
        with self._lock:
            times = self._recent(place, now)
            return 0.0 if len(times) < self.most else times[-self.most] + self.window - now

    def __len__(self) -> int:
        return len(self._failed)

    def _recent(self, place: str, now: float) -> list[float]:
        times = [then for then in self._failed.get(place, ()) if now - then < self.window]
        if not times:
            self._failed.pop(place, None)
        return times


class Guard:
    """Decides who may pass.

    Args:
        settings: the section `[auth]`.
        environ: where the tokens may be; None: the environment of this process.
        attempts: failures so far, to be kept over a reload; None: none yet.

    Raises:
        ConfigError: the settings or the tokens cannot be used.
    """

    def __init__(
        self, settings: AuthSettings, environ: Mapping[str, str] | None = None, attempts: Attempts | None = None
    ) -> None:
        tokens = tokens_of(settings, os.environ if environ is None else environ)
        self.settings = settings
        self.attempts = attempts or Attempts(settings.max_failures, settings.failure_window)
        self.allowed = networks_of(settings.allowed_ips, "auth.allowed_ips")
        self.proxies = networks_of(settings.trusted_proxies, "auth.trusted_proxies")
        self.shortest = min((len(one.reveal()) for one in tokens.all()), default=None)
        """Length of the shortest token; None when there is no token."""
        names = [
            f"{kind} {n + 1}"
            for kind, some in (("secondary", tokens.secondary), ("read", tokens.read))
            for n in range(len(some))
        ]
        self._primary = None if tokens.primary is None else _digest(tokens.primary.reveal().encode())
        self._others = tuple(
            (_digest(one.reveal().encode()), Principal(name, _READ if name.startswith("read") else _ALL))
            for name, one in zip(names, (*tokens.secondary, *tokens.read), strict=True)
        )
        self._first = Principal("primary", _ALL)
        self.admits = lru_cache(4096)(self._admits)
        """Whether an address passes the allowlist, and why."""

    @property
    def fingerprint(self) -> bytes:
        """Other tokens, another fingerprint; tells nothing of them."""
        return _digest(b"".join(sorted([self._primary or b"", *(digest for digest, _ in self._others)])))

    @property
    def tokens(self) -> int:
        """How many tokens are in force."""
        return len(self._others) + (self._primary is not None)

    @property
    def has_token(self) -> bool:
        """Whether a token is asked for at all."""
        return self.shortest is not None

    def identify(self, token: bytes) -> Principal | None:
        """Whose token this is. The primary one is one compare; of the others each is compared, whichever fits."""
        given = _digest(token)
        if self._primary is not None and hmac.compare_digest(given, self._primary):
            return self._first
        found = None
        for digest, principal in self._others:
            if hmac.compare_digest(given, digest):
                found = principal
        return found

    def client(self, peer: str, forwarded: Sequence[str] = ()) -> str:
        """The address a request comes from.

        Args:
            peer: the other end of the connection.
            forwarded: the `X-Forwarded-For` headers, in order; believed only of a configured proxy.

        Returns:
            The rightmost address that is no proxy of ours; as it was written, when it cannot be read.
        """
        if not self.proxies or not _within(address_of(peer), self.proxies):
            return peer
        client = peer
        for entry in reversed([part.strip() for line in forwarded for part in line.split(",") if part.strip()]):
            client = entry
            if not _within(address_of(entry), self.proxies):
                break
        return client

    def decide(self, address: str, token: bytes | None, scope: Scope = "read") -> Decision:
        """Ask every layer; counts nothing and logs nothing.

        Args:
            address: where the request comes from, see `client`.
            token: what `bearer` found.
            scope: what the request needs.
        """
        passed, why = self.admits(address)
        layers = [Layer("address", passed, why)]
        if not passed:
            return Decision(None, tuple(layers), Forbidden(f"the address {address[:60]} is not allowed"))
        if not self.has_token:
            layers.append(Layer("token", True, "no token is configured"))
            return Decision(DEVELOPMENT, tuple(layers), None)
        if token is not None and (wait := self.attempts.wait(address)) > 0:
            why = f"too many wrong tokens from {address[:60]}"
            layers.append(Layer("attempts", False, why))
            return Decision(None, tuple(layers), TooManyAttempts(why, hint=f"try again in {ceil(wait)} s"))
        principal = None if token is None else self.identify(token)
        if principal is None:
            why = "no token was given" if token is None else "the token is not one of ours"
            layers.append(Layer("token", False, why))
            hint = "send the header Authorization: Bearer TOKEN" if token is None else None
            return Decision(None, tuple(layers), Unauthenticated(why, hint=hint))
        layers.append(Layer("token", True, f"the {principal.name} token"))
        may = principal.may(scope)
        layers.append(Layer("scope", may, f"{scope} is{'' if may else ' not'} in its scopes"))
        if not may:
            return Decision(None, tuple(layers), Forbidden(f"the {principal.name} token may not {scope}"))
        return Decision(principal, tuple(layers), None)

    def check_bind(self, host: str, resolve: Resolver | None = None) -> None:
        """Refuse to listen where others could reach what nothing protects.

        Args:
            host: where the server would listen, as it is written.
            resolve: addresses of a host name; None: those the system knows.

        Raises:
            BindRefused: it is not loopback, and there is no token or a short one.
        """
        if is_loopback(host, resolve):
            return
        where = f"'{host}'" if host.strip() else "every address"
        if self.shortest is None:
            raise BindRefused(
                f"listening on {where} needs a token, as it is not loopback only",
                hint=f"set {self.settings.token_env} (`lakehouse token new` makes one), or listen on 127.0.0.1",
            )
        if self.shortest < SHORTEST:
            raise BindRefused(
                f"listening on {where} needs tokens of at least {SHORTEST} characters; one has {self.shortest}",
                hint="`lakehouse token new` makes one",
            )

    def __repr__(self) -> str:
        return f"<Guard {self.tokens} tokens, {len(self.allowed)} allowed networks, {len(self.proxies)} proxies>"

    def _admits(self, address: str) -> tuple[bool, str]:
        found = address_of(address)
        if self.allowed:
            if found is None:
                return False, f"{address[:60]!r} is no address"
            network = next((one for one in self.allowed if found in one), None)
            return network is not None, f"{found} is in {network}" if network else f"{found} is in no allowed network"
        if self.has_token:
            return True, "any address is allowed"
        # A Unix socket has the address 0.0.0.0, which no other machine can have.
        if found is not None and (found.is_loopback or found.is_unspecified):
            return True, "without a token only this machine is allowed"
        return False, f"{address[:60]} is not this machine, and no token is configured"


def is_loopback(host: str, resolve: Resolver | None = None) -> bool:
    """Whether listening on a host is seen by this machine only; a name that cannot be resolved counts as not."""
    host = host.strip()
    if not host or host == "*":
        return False
    found = address_of(host) if host.count(":") != 1 else None
    if found is not None:
        return found.is_loopback
    try:
        addresses = [address_of(one) for one in (resolve or _resolve)(host)]
    except (OSError, UnicodeError):
        return False
    return bool(addresses) and all(one is not None and one.is_loopback for one in addresses)


def _resolve(host: str) -> list[str]:
    return [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _within(address: IPv4Address | IPv6Address | None, networks: tuple[Network, ...]) -> bool:
    return address is not None and any(address in network for network in networks)


def _place(address: str) -> str:
    """What failures are counted by: the address, of IPv6 the /64 that one subscriber has."""
    found = address_of(address)
    if isinstance(found, IPv6Address):
        return str(IPv6Network((int(found) >> 64 << 64, 64)))
    return address[:60] if found is None else str(found)
