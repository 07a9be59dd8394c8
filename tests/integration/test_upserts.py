"""Upserts of several processes at once, and killed ones: never a key twice, never half a load."""

import random
import time

import lakehouse

OPEN = (
    "import lakehouse, pyarrow as pa\n"
    "lake = lakehouse.open(args[0])\n"
    "who = int(args[1])\n"
    "def frame(n): return pa.table({'id': pa.array(range(3000), pa.int64()), 'who': [who] * 3000, 'n': [n] * 3000})\n"
    "say({'ready': 1})\nsys.stdin.readline()\n"
)


def test_processes_that_upsert_the_same_keys_into_a_new_table(lake, child):
    code = OPEN + (
        "for n in range(5):\n"
        "    r = lake.ingest(frame(n), 't', mode='upsert', key='id')\n"
        "    say({'inserted': r.inserted, 'updated': r.updated})"
    )
    children = [child(code, lake.path, number) for number in range(4)]
    for one in children:
        assert one.hear() == {"ready": 1}
    for one in children:
        one.go()
    said = [value for one in children for value in one.end()]
    assert sorted(value["inserted"] for value in said) == [0] * 19 + [3000]
    assert sum(value["updated"] for value in said) == 19 * 3000
    assert lake.sql("SELECT count(*), count(DISTINCT id), count(DISTINCT who), min(n) FROM t").fetchall() == [
        (3000, 3000, 1, 4)  # whoever was last wrote its last round, whole
    ]


def test_kill_while_upserting(lake, child):
    chance = random.Random(11)
    number = 0
    for _ in range(5):
        loop = f"for n in range({number}, {number} + 1000):\n"
        loop += "    lake.ingest(frame(n), 't', mode='upsert', key='id')\n    say({'n': n})\n"
        writer = child(OPEN + loop, lake.path, 0)
        assert writer.hear() == {"ready": 1}
        writer.go()
        said = [writer.hear()]
        time.sleep(chance.uniform(0, 0.4))
        said += writer.kill()
        with lakehouse.open(lake.path) as after:
            found = after.sql("SELECT n, count(*), count(DISTINCT id) FROM t GROUP BY n").fetchall()
            last = said[-1]["n"]
            assert found in ([(last, 3000, 3000)], [(last + 1, 3000, 3000)])  # the one under way may be committed
            number = found[0][0] + 1


def test_kill_while_a_quarantine_lands_or_is_retried(lake, child, tmp_path):
    """Good rows and rejects come together, and a retry moves rows: at every moment all of them are there once."""
    lake.sql("CREATE TABLE t (id BIGINT, n BIGINT)")
    chance = random.Random(12)
    code = OPEN + (
        "for n in range(1000):\n"
        "    lines = ''.join(f'{i},{\"x\" if i % 10 == 0 else n}\\n' for i in range(200))\n"
        "    open(args[2], 'w').write('id,n\\n' + lines)\n"
        "    lake.ingest(args[2], 't', mode='replace', contract='quarantine')\n"
        "    say({'loaded': n})\n"
        "    lake.sql(f\"UPDATE t__rejects SET raw = replace(raw, 'x', '{n}') WHERE line % 4 = 2\")\n"
        "    lake.ingest.retry('t')\n"
        "    say({'retried': n})\n"
    )
    for _ in range(4):
        writer = child(code, lake.path, 0, tmp_path / "a.csv")
        assert writer.hear() == {"ready": 1}
        writer.go()
        writer.hear()
        time.sleep(chance.uniform(0, 0.6))
        writer.kill()
        with lakehouse.open(lake.path) as after:
            whole = after.sql(
                "SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM t UNION ALL"
                " SELECT split_part(raw, ',', 1)::BIGINT FROM t__rejects)"
            ).fetchall()
            assert whole == [(200, 200)]
            assert after.sql("SELECT count(*) FROM t").fetchall()[0][0] in (180, 190)
