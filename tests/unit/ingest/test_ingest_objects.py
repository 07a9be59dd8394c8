"""Objects of the lake's own store as sources."""

import pytest

from lakehouse import errors


def test_an_object_is_loaded_by_receipt_by_info_and_by_key(lake):
    put = lake.storage.put("landing/2026/a.csv", b"id,v\n1,a\n2,b\n")
    receipt = lake.ingest(put, "t")
    assert (receipt.rows, receipt.source, receipt.sha256) == (2, "object:landing/2026/a.csv", put.sha256)
    assert '"source":"object:landing/2026/a.csv"' in lake.catalog.current_snapshot().note
    for source in ("object:landing/2026/a.csv", lake.storage.head("landing/2026/a.csv")):
        again = lake.ingest(source, "t")
        assert (again.duplicate, again.snapshot) == (True, receipt.snapshot)
    assert not any((lake.path / "tmp").rglob("*"))
    assert lake.storage.get("landing/2026/a.csv") == b"id,v\n1,a\n2,b\n"


def test_the_format_is_told_by_the_key_or_given(lake):
    lake.storage.put("x/records", b'{"id": 1}\n')
    with pytest.raises(errors.SourceUnreadable, match="format of records is not known"):
        lake.ingest("object:x/records", "t")
    assert lake.ingest("object:x/records", "t", format="json").rows == 1


def test_rejected_rows_of_an_object_name_it(lake):
    lake.storage.put("a.csv", b"id,v\n1,a\n2\n")
    assert lake.ingest("object:a.csv", "t", contract="quarantine").rejected == 1
    assert lake.sql("SELECT source, line FROM t__rejects").fetchall() == [("object:a.csv", 3)]


@pytest.mark.parametrize(
    ("source", "error"),
    [("object:none.csv", errors.ObjectNotFound), ("object:", errors.KeyInvalid), ("object:../x", errors.KeyInvalid)],
)
def test_objects_that_are_not_there(lake, source, error):
    with pytest.raises(error):
        lake.ingest(source, "t")
    assert lake.catalog.tables() == []
