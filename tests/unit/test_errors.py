"""The errors: one tree, drawn as it is, each with a code and a status of its own."""

import re

from lakehouse import errors
from lakehouse.errors import LakehouseError


def _all(kind=LakehouseError):
    return [kind, *(below for child in kind.__subclasses__() for below in _all(child))]


def test_the_tree_at_the_top_is_the_tree_there_is():
    drawn = {}
    path = []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"^    ([│├└─ ]*)([A-Z]\w+)(?:\s|$)", line):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            drawn[match[2]] = path[depth - 1] if depth else None
    ours = [kind for kind in _all() if kind.__module__.startswith("lakehouse.")]  # others have their own below
    assert {kind.__module__ for kind in ours} == {errors.__name__}
    real = {kind.__name__: kind.__bases__[0].__name__ for kind in ours if kind is not LakehouseError}
    assert drawn == {"LakehouseError": None, **real}


def test_codes_are_unique_and_statuses_are_errors():
    codes = [kind.code for kind in _all()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)
    assert all(400 <= kind.status < 600 for kind in _all())


def test_every_error_says_what_it_is_for():
    assert all(kind.__doc__ for kind in _all())


def test_text_is_message_and_hint():
    error = LakehouseError("it broke", hint="mend it")
    assert (error.message, error.hint, str(error)) == ("it broke", "mend it", "it broke\nHint: mend it")
    assert str(LakehouseError("it broke")) == "it broke"
