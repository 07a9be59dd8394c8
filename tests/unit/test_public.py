"""The public names, and that importing them does nothing."""

import subprocess
import sys

import pytest

import lakehouse


def test_public_names_are_these():
    assert lakehouse.__all__ == [
        "Client",
        "Column",
        "Completer",
        "Lakehouse",
        "LakehouseError",
        "Receipt",
        "Result",
        "Settings",
        "Snapshot",
        "Table",
        "__version__",
        "connect",
        "load_ipython_extension",
        "open",
        "restore",
    ]


def test_every_public_name_is_there_and_listed():
    for name in lakehouse.__all__:
        assert getattr(lakehouse, name) is not None
    assert dir(lakehouse) == sorted(lakehouse.__all__)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'disconnect'"):
        lakehouse.disconnect  # noqa: B018


def test_import_loads_no_heavy_library():
    code = "import sys, lakehouse; print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )
    assert "lakehouse" in loaded
    assert not loaded & {"pandas", "pyarrow", "sqlglot", "papermill", "duckdb", "numpy", "IPython", "msgspec", "httpx"}


def test_import_touches_no_file(tmp_path):
    code = "import lakehouse; lakehouse.LakehouseError; lakehouse.__all__"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
