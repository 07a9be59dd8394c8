"""Notebook widgets for a lake; they use only the public names of `lakehouse`."""

__all__: list[str] = []
