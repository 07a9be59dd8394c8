"""How a key is spelled as nested folders, so that any key works and a walk gives the keys in order.

    landing/flights.csv     landing+ / flights.csv@
    landing                 landing@
    Zürich                  %5a%c3%bcrich@
    (100 times x)           xxx…x~ / xxx…x@

A folder's name is a part of the key and a mark: `+` more parts follow, `@` the key ends here, `~`
the part goes on below (a file name has at most 255 bytes). Small letters, digits and `._-` stand
for themselves and every other byte for `%` and two hex digits: no name is special to any file
system, and none depends on case, locale or Unicode normalisation.
"""

from __future__ import annotations

import re

FOLDER, MORE, OBJECT = "+", "~", "@"

_PIECE = 80  # bytes of a part in one folder name: three characters each and a mark stay below 255
_SPELLED = [
    chr(byte) if chr(byte) in "abcdefghijklmnopqrstuvwxyz0123456789._-" else f"%{byte:02x}" for byte in range(256)
]
_NAME = re.compile(r"((?:[a-z0-9._-]|%[0-9a-f]{2})*)([+~@])")
_ESCAPE = re.compile(rb"%([0-9a-f]{2})")


def folders(key: str) -> tuple[str, ...]:
    """The names of the folders, from the outermost to the object's own."""
    *parts, last = key.encode().split(b"/")
    return tuple(name for part in parts for name in _split(part, FOLDER)) + tuple(_split(last, OBJECT))


def read(name: str) -> tuple[bytes, str] | None:
    """What a folder adds to the key, and its mark; None when the name is none of ours.

    What `+` adds ends in `/`, so sorting the folders of one folder by what they add sorts the keys
    below them: a part as long as a piece is always continued, hence no two overlap.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    raw = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), match[1].encode())
    if _spell(raw) != match[1]:
        return None  # a second spelling would be a second object under one key
    return (raw + b"/" if match[2] == FOLDER else raw), match[2]


def _split(part: bytes, mark: str) -> list[str]:
    whole = len(part) // _PIECE * _PIECE
    names = [_spell(part[start : start + _PIECE]) + MORE for start in range(0, whole, _PIECE)]
    return [*names, _spell(part[whole:]) + mark]


def _spell(raw: bytes) -> str:
    return "".join(_SPELLED[byte] for byte in raw)
