"""What looks like a secret in SQL, and SQL without it."""

from __future__ import annotations

import re

_SPACE = r"(?:\s|--[^\n]*\n|/\*.*?\*/)+"
_SECRET = re.compile(
    rf"\bcreate{_SPACE}(?:or{_SPACE}replace{_SPACE})?(?:(?:persistent|temporary|temp){_SPACE})?secret\b[^(]*\(",
    re.I | re.S,
)
_ASSIGNED = re.compile(
    r"""(\b\w*(?:password|passwd|pwd|secret|token|access_key|api_?key|credential|authorization)\w*['"]?\s*(?:=>|:=|=|:|\bto\b)\s*)"""
    r"""((?!\$\w+(?![\w$]))(?:'(?:[^']|'')*'?|\$(\w*)\$.*?(?:\$\3\$|\Z)|"(?:[^"]|"")*"?|[^\s'",;)&]+))""",
    re.I | re.S,
)
_IN_URL = re.compile(r"(://[^\s:/@']*:)[^\s@']+@")
_NAMED = re.compile(r"password|passwd|pwd|secret|token|access_key|api_?key|credential|authorization", re.I)


def masked(sql: str) -> str:
    """The SQL with `***` for what is in a secret's definition, or is assigned to a name that speaks of one."""
    if found := _SECRET.search(sql):
        sql = f"{sql[: found.end()]}***)"  # to the very end: where a definition ends is for a parser to say
    sql = _ASSIGNED.sub(r"\1***", sql)
    return _IN_URL.sub(r"\1***@", sql)


def secret(name: str) -> bool:
    """Whether a value of that name is likely one."""
    return bool(_NAMED.search(name))
