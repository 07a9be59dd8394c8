"""How numbers stand in messages."""

from __future__ import annotations


def counted(number: int, what: str, several: str | None = None) -> str:
    """A number and what is counted, in the plural where it must be."""
    return f"{number:,} {what if number == 1 else several or f'{what}s'}"
