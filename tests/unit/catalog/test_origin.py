"""Where a write or a query comes from."""

import json
import sys

import pytest

from lakehouse.catalog.origin import origin


@pytest.mark.parametrize(
    ("notebook", "program", "told", "noted"),
    [
        ("a.ipynb", "/env/ipykernel_launcher.py", "notebook a.ipynb", {"notebook": "a.ipynb"}),
        (None, "/env/ipykernel_launcher.py", "notebook", {}),
        (None, "/env/bin/lakehouse", "command line", {}),
        (None, "-c", "Python", {}),
        (None, "load.py", "script load.py", {"script": "load.py"}),
    ],
)
def test_origin(lake, monkeypatch, notebook, program, told, noted):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    if notebook:
        monkeypatch.setenv("JPY_SESSION_NAME", notebook)
    monkeypatch.setattr(sys, "argv", [program])
    assert str(origin()) == told
    lake.sql("CREATE TABLE t (id INTEGER)")
    note = json.loads(lake.catalog.current_snapshot().note)
    assert {key: note[key] for key in ("notebook", "script") if key in note} == noted
    assert lake.queries()[0].origin == told
