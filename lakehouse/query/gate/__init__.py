"""The gate that SQL from strangers passes before it runs: it reads the text, and never executes any of it."""

from lakehouse.query.gate.gate import Gate, Passed
from lakehouse.query.gate.names import Named, Names, names

__all__ = ["Gate", "Named", "Names", "Passed", "names"]
