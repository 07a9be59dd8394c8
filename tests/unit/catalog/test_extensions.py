"""DuckDB's extensions: the wheels' own are loaded at once, all others only with a valid signature."""

import duckdb
import pytest

from lakehouse.catalog import extensions


@pytest.fixture
def tampered(tmp_path):
    """An extension file of a wheel with one byte changed."""
    content = bytearray(extensions.wheel("excel", duckdb.__version__).read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "excel.duckdb_extension"
    path.write_bytes(content)
    return path


def test_signatures_are_checked_in_an_opened_lake(lake, tampered):
    with pytest.raises(duckdb.IOException, match="signature"):
        lake._database.root.execute(f"LOAD '{tampered}'")
    with pytest.raises(duckdb.InvalidInputException, match="Cannot change"):
        lake._database.root.execute("SET allow_unsigned_extensions = true")


def test_a_signed_extension_loads_later(lake):
    lake._database.load("excel")
    loaded = lake._database.root.execute("SELECT loaded FROM duckdb_extensions() WHERE extension_name = 'excel'")
    assert loaded.fetchone() == (True,)


def test_without_its_wheel_an_extension_is_never_loaded_unsigned(monkeypatch):
    seen = []

    def asked(connection, *names):
        seen.extend(
            (name, connection.execute("SELECT current_setting('allow_unsigned_extensions')").fetchone()[0])
            for name in names
        )

    real = extensions.wheel
    monkeypatch.setattr(extensions, "wheel", lambda name, version: None if name == "ducklake" else real(name, version))
    monkeypatch.setattr(extensions, "load", asked)
    extensions.connect({}).close()
    assert seen == [("sqlite_scanner", True), ("ducklake", False)]
