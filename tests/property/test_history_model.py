"""Changes, rollback and branches against a plain model of a table: any order of writes gives what the model says."""

from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

import lakehouse

_IDS = st.integers(0, 7)
_MANY = st.integers(8, 15)  # an insert of more rows than the catalog keeps: they get a file
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), _IDS),
        st.tuples(st.just("insert many"), _MANY),
        st.tuples(st.just("delete"), _IDS | _MANY),
        st.tuples(st.just("update"), _IDS | _MANY),
        st.tuples(st.just("rollback"), st.integers(0, 9)),
        st.tuples(st.just("branch"), _IDS),
        st.tuples(st.just("compact"), st.just(0)),
    ),
    min_size=3,
    max_size=9,
)
_SQL = {
    "insert": "INSERT INTO t VALUES ({n}, NULL), ({n}, NULL), ({n}, 'x')",
    "insert many": "INSERT INTO t SELECT {n}, CAST(range % 3 AS VARCHAR) FROM range(12)",
    "delete": "DELETE FROM t WHERE id = {n}",
    "update": "UPDATE t SET s = coalesce(s, '') || 'u' WHERE id = {n}",
}


def _applied(rows, step, n):
    """What a step makes of a multiset of rows."""
    if step == "insert":
        return rows + Counter({(n, None): 2, (n, "x"): 1})
    if step == "insert many":
        return rows + Counter({(n, str(i % 3)): 4 for i in range(3)})
    kept = Counter({row: count for row, count in rows.items() if row[0] != n})
    hit = rows - kept
    if step == "update":
        for (id, s), count in hit.items():
            kept[id, f"{s or ''}u"] += count
    return kept


def _compact(lake):
    with lake._writer.plain() as connection:
        connection.execute("CALL ducklake_flush_inlined_data('lake')")
        connection.execute("CALL ducklake_rewrite_data_files('lake', delete_threshold => 0.01)")
        connection.execute("CALL ducklake_merge_adjacent_files('lake')")


def _now(lake):
    return Counter(lake.sql("FROM t").fetchall())


@settings(max_examples=8)
@given(steps=_STEPS)
@example(steps=[("insert", 0), ("rollback", 0), ("compact", 0)])
@example(steps=[("insert many", 8), ("update", 8), ("compact", 0), ("delete", 8), ("rollback", 2), ("branch", 1)])
def test_any_history(tmp_path_factory, steps):
    with lakehouse.open(tmp_path_factory.mktemp("model") / "lake") as lake:
        made = lake.sql("CREATE TABLE t (id BIGINT, s VARCHAR)").snapshot
        table = lake.catalog.table("t")
        states = {made: Counter()}  # what the model has at each snapshot
        for step, n in steps:
            last = max(states)
            rows = states[last]
            if step == "compact":
                _compact(lake)
            elif step == "rollback":
                version = sorted(states)[n % len(states)]
                table.rollback(version)
                rows = states[version]
            elif step == "branch":
                with lake.branch("b") as b:
                    for inner in ("update", "insert"):
                        b.sql(_SQL[inner].format(n=n))
                        rows = _applied(rows, inner, n)
                    assert _now(b) == rows
                    assert _now(lake) == states[last]
                    b.publish()
            else:
                lake.sql(_SQL[step].format(n=n))
                rows = _applied(rows, step, n)
            assert _now(lake) == rows
            states[lake.catalog.current_snapshot().id] = rows
        _changes_lead_from_state_to_state(table, states)


def _changes_lead_from_state_to_state(table, states):
    """The rows put in and taken out between two states are what makes one of the other."""
    known = sorted(states)
    for number, start in enumerate(known):
        for end in known[number + 1 :]:
            rows = Counter(states[start])
            for change in table.changes(start + 1, end).to_pylist():
                sign = -1 if change["change_type"] in ("delete", "update_preimage") else 1
                rows[change["id"], change["s"]] += sign
            assert +rows == +states[end], (start, end)
            assert not -rows
