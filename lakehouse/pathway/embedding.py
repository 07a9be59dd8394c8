"""Meaning as numbers: what turns a text into a vector, offline."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lakehouse.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MODEL = "l2_supercat"
_LONGEST = 20_000
"""Characters of a text that are looked at."""


class Embedder(Protocol):
    """Turns texts into vectors; texts of like meaning should point in like directions.

    The vector of a text must not depend on the texts beside it: vectors are made again when their file is lost.
    """

    name: str
    """Tells it from others, in the name of a file: letters, digits, dashes."""
    dimension: int
    """Numbers in a vector, a multiple of 64."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row for each text, of any length; zeros where it has no meaning."""


class WordLlama:
    """The mean of the word vectors that the package `wordllama` ships (MIT licence); needs no network and no GPU."""

    name = "wordllama-l2-supercat"
    dimension = 256

    def __init__(self) -> None:
        self._loaded: tuple[Any, Any] | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As of `Embedder`."""
        import numpy as np

        tokenizer, vectors = self._load()
        pieces = tokenizer.encode_batch([text[:_LONGEST] for text in texts], add_special_tokens=False)
        result = np.zeros((len(texts), self.dimension), np.float32)
        for row, piece in zip(result, pieces, strict=True):
            if piece.ids:
                np.mean(vectors[piece.ids], axis=0, dtype=np.float32, out=row)
        return result

    def _load(self) -> tuple[Any, Any]:
        # Its own import would take half a second, bring an HTTP client and set up logging; its files are all we need.
        if self._loaded is None:
            from safetensors.numpy import load_file
            from tokenizers import Tokenizer

            spec = find_spec("wordllama")
            if spec is None or not spec.submodule_search_locations:
                raise missing()
            folder = Path(next(iter(spec.submodule_search_locations)))
            tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / f"{_MODEL}_tokenizer_config.json"))
            tokenizer.no_padding()
            tokenizer.no_truncation()
            (vectors,) = load_file(folder / "weights" / f"{_MODEL}_{self.dimension}.safetensors").values()
            self._loaded = tokenizer, vectors
        return self._loaded


def default() -> Embedder | None:
    """The embedder of the extra `semantic`, or None when it is not installed."""
    wanted = ("wordllama", "tokenizers", "safetensors")
    return WordLlama() if all(find_spec(name) is not None for name in wanted) else None


def missing() -> ConfigError:
    """What is said when somebody asks for meaning and there is no embedder."""
    return ConfigError(
        "searching by meaning needs the extra 'semantic'", hint="pip install lakehouse-workbench[semantic]"
    )
