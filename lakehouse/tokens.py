"""The tokens of a server: where they come from, and how one is read from a request. They are never shown or logged."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lakehouse.config import AuthSettings, Secret
from lakehouse.errors import ConfigError

SHORTEST = 16
"""Characters of a token that may be used beyond loopback."""
SUFFIXES = ("", "_SECONDARY", "_READ")
"""What is added to the name in `token_env` for primary, secondary and read tokens."""
_LONGEST_FILE = 65_536


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that are in force."""

    primary: Secret | None = None
    secondary: tuple[Secret, ...] = ()
    read: tuple[Secret, ...] = ()

    def all(self) -> tuple[Secret, ...]:
        """Every one of them."""
        return (*((self.primary,) if self.primary else ()), *self.secondary, *self.read)


def new_token() -> str:
    """A token of 256 random bits, in characters that need no quotes anywhere."""
    return secrets.token_urlsafe(32)


def tokens_of(settings: AuthSettings, environ: Mapping[str, str]) -> Tokens:
    """The tokens that settings and environment name.

    Args:
        settings: the section `[auth]`; its token wins over the environment, its lists are added to.
        environ: the environment, with `token_env`, `…_SECONDARY`, `…_READ`, or each of them with `_FILE`.

    Raises:
        ConfigError: an empty token, one with white space inside, one given twice, or a file that others may read.
    """
    env = settings.token_env
    if settings.token is not None:
        primary = [_checked(settings.token.reveal(), "auth.token")]
    else:
        primary = _given(env, environ, needed=True)
    secondary, read = _given(f"{env}_SECONDARY", environ), _given(f"{env}_READ", environ)
    if len(primary) > 1:
        raise ConfigError(
            f"{env} holds more than one token",
            hint=f"put the others into {env}_SECONDARY",
        )
    secondary = [_checked(one.reveal(), "auth.secondary_tokens") for one in settings.secondary_tokens] + secondary
    read = [_checked(one.reveal(), "auth.read_tokens") for one in settings.read_tokens] + read
    found = Tokens(primary[0] if primary else None, tuple(secondary), tuple(read))
    if len({one.reveal() for one in found.all()}) < len(found.all()):
        raise ConfigError("a token is given twice", hint="every token has one purpose; `lakehouse token new` makes one")
    return found


def bearer(header: str | None) -> bytes | None:
    """The token in an `Authorization` header (`Bearer …`, or `token …` as Jupyter writes it); None when there is none."""
    scheme, _, value = (header or "").strip().partition(" ")
    if scheme.lower() not in ("bearer", "token") or not value.strip():
        return None
    return value.strip().encode("latin-1", "replace")


def environment_names(settings: AuthSettings) -> tuple[str, ...]:
    """The variables that may hold tokens themselves, which nobody else needs to see."""
    own = ("LAKEHOUSE_AUTH_TOKEN", "LAKEHOUSE_AUTH_SECONDARY_TOKENS", "LAKEHOUSE_AUTH_READ_TOKENS")
    return (*own, *(settings.token_env + suffix for suffix in SUFFIXES))


def _given(name: str, environ: Mapping[str, str], *, needed: bool = False) -> list[Secret]:
    """The tokens in a variable, or in the file that the variable with `_FILE` names.

    A variable that must not be empty most often is one whose value went missing: that is no wish for no token.
    """
    text, path = environ.get(name), environ.get(f"{name}_FILE")
    if text is not None and path is not None:
        raise ConfigError(f"{name} and {name}_FILE are both set", hint="unset one of them")
    if path is not None:
        text = _read(Path(path), f"{name}_FILE")
    if text is None:
        return []
    where = name if path is None else f"{name}_FILE"
    found = [_checked(part, where) for part in text.replace("\n", ",").split(",") if part.strip()]
    if needed and not found:
        raise ConfigError(f"{where} is empty", hint="give a token (`lakehouse token new` makes one), or unset it")
    return found


def _read(path: Path, where: str) -> str:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > _LONGEST_FILE:
                raise ConfigError(f"{where}: {path} is not a file with a token")
            if found.st_mode & 0o077:
                raise ConfigError(
                    f"{where}: {path} may be read by others (mode {found.st_mode & 0o777:04o})",
                    hint=f"chmod 600 {path}",
                )
            return file.read().decode()
    except OSError as error:
        raise ConfigError(f"{where}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: {path} is not text") from None


def _checked(text: str, where: str) -> Secret:
    token = text.strip()
    if not token:
        raise ConfigError(f"{where} is empty", hint="give a token (`lakehouse token new` makes one), or unset it")
    if any(character.isspace() or not character.isprintable() for character in token):
        raise ConfigError(f"{where} holds a token with white space or control characters in it")
    return Secret(token)
