"""`kill -9` at random moments of loads, upserts, rollbacks, deletes, maintenance and backup: fifty rounds."""

import random
import time

import crashing

import lakehouse


def test_fifty_rounds(tmp_path):
    rounds = crashing.Crashing(tmp_path, seed=3)
    try:
        summary = rounds.run(50)
    finally:
        rounds.close()
    print(summary)
    assert sum(summary.rounds.values()) == 50
    assert set(summary.rounds) == set(crashing.KINDS)
    assert summary.acknowledged > 50  # it was really working when it was killed
    assert summary.snapshots > 50


def test_a_restore_that_is_killed_leaves_a_whole_lake_or_none(lake, child, tmp_path):
    for n in range(20):
        lake.storage.put(f"object-{n}", bytes([n]) * 100_000)
    lake.sql("CREATE TABLE t AS SELECT range AS x FROM range(200000)")
    lake.backup(tmp_path / "backup")
    chance = random.Random(4)
    target = tmp_path / "again"
    code = """
        import lakehouse.lake
        say({"ready": 1})
        lakehouse.restore(args[0], args[1])
        say({"done": 1})
        sys.stdin.readline()
    """
    for _ in range(4):
        restorer = child(code, tmp_path / "backup", target)
        assert restorer.hear() == {"ready": 1}
        time.sleep(chance.uniform(0, 0.1))
        said = restorer.kill()
        if target.exists():
            break
        assert said == []
    if not target.exists():
        lakehouse.restore(tmp_path / "backup", target)
    with lakehouse.open(target) as again:
        assert again.sql("SELECT count(*), sum(x) FROM t").fetchall() == [(200_000, 19_999_900_000)]
        assert again.storage.get("object-7") == b"\7" * 100_000
        assert again.doctor(checksums=True).healthy
