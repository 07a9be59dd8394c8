"""The journal of writes over HTTP."""

import pytest

from lakehouse.errors import JournalError
from lakehouse.server.audit import Audit


def test_what_was_noted_is_read_newest_first(tmp_path):
    audit = Audit(tmp_path)
    for outcome in ("done", "conflict"):
        audit.note(who="primary", outcome=outcome)
    assert [one["outcome"] for one in audit.newest(5)] == ["conflict", "done"]
    assert [one["outcome"] for one in audit.newest(1)] == ["conflict"]


def test_a_journal_that_cannot_be_made(tmp_path):
    (tmp_path / "server").write_text("in the way")
    with pytest.raises(JournalError, match="server cannot be made"):
        Audit(tmp_path).note(who="primary", outcome="done")


def test_no_lake_no_journal(tmp_path):
    Audit(tmp_path / "nothing").note(who="primary", outcome="done")
    assert not (tmp_path / "nothing").exists()
