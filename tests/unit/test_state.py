"""The state file: what is written is there for every process, or the error says why not."""

import pytest

from lakehouse import errors
from lakehouse.state import SCHEMA, State

ADD = "INSERT INTO saved_query VALUES (?, ?, 'now')"


@pytest.fixture
def state(tmp_path):
    return State(tmp_path / "state.sqlite", SCHEMA)


def test_reading_before_anything_was_written_gives_nothing_and_makes_no_file(state):
    assert state.read("SELECT * FROM saved_query") == []
    assert not state.path.exists()


def test_what_is_written_is_read_by_another(state):
    with state.write() as connection:
        connection.execute(ADD, ("a", "SELECT 1"))
    assert State(state.path, SCHEMA).read("SELECT name, sql FROM saved_query WHERE name = ?", ["a"]) == [
        ("a", "SELECT 1")
    ]


def test_an_exception_undoes_the_write(state):
    with pytest.raises(ZeroDivisionError), state.write() as connection:
        connection.execute(ADD, ("a", "SELECT 1"))
        _ = 1 / 0
    assert state.read("SELECT * FROM saved_query") == []


def test_a_damaged_file_is_named(state):
    state.path.write_bytes(b"this is not a database, but it is long enough to look at" * 100)
    with pytest.raises(errors.LakeUnusable, match=r"state\.sqlite is damaged"):
        state.read("SELECT * FROM saved_query")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    state = State(tmp_path / "nowhere" / "state.sqlite", SCHEMA)
    with pytest.raises(errors.LakeUnusable, match="cannot be used"), state.write():
        pass


def test_several_processes_write_and_none_is_lost(state, child):
    code = """
        from pathlib import Path
        from lakehouse.state import SCHEMA, State
        state = State(Path(args[0]), SCHEMA)
        for number in range(50):
            with state.write() as connection:
                connection.execute("INSERT INTO saved_query VALUES (?, 'SELECT 1', 'now')", (f"{args[1]}-{number}",))
        say("done")
    """
    writers = [child(code, state.path, number) for number in range(3)]
    assert [writer.hear() for writer in writers] == ["done"] * 3
    assert state.read("SELECT count(*) FROM saved_query") == [(150,)]
