"""64 connections that read, load, put and remember at once, and the server killed in the middle of it."""

import loading


def test_sixty_four_connections_lose_nothing(tmp_path):
    """Twelve seconds here, a minute in `make bench` (benchmarks/load.py), by the same clients."""
    load = loading.Loading(tmp_path, seed=3)
    try:
        load.start()
        outcome = load.run(12)
        assert "Traceback" not in load.server.log
    finally:
        load.stop()
    print(outcome.done, f"{len(outcome.waits)} answers, memory {outcome.memory[::5]} MB")
    assert outcome.wrong == []
    assert set(outcome.done) == set(loading.MIX)
    assert outcome.acknowledged > 100
    assert load.check() == 0
    assert loading.flat(outcome.memory) < 1.25


def test_killed_under_load_it_keeps_what_it_acknowledged(tmp_path):
    load = loading.Loading(tmp_path, connections=32, seed=4)
    cut = 0
    try:
        for count in (10, 30, 60):
            load.start()
            outcome = load.run(60, kill=count)
            assert outcome.wrong == []
            assert outcome.acknowledged >= count
            cut += sum(not sure for one in (outcome.loads, outcome.objects, outcome.traces) for sure in one.values())
            extra = load.check()
            print(f"{outcome.acknowledged} acknowledged, {cut} cut off so far, {extra} of them there")
            load.server.stop()
        load.start()
        assert load.server.call("GET", "/ready").status_code == 200
        assert load.server.call("GET", "/storage?limit=1").status_code == 200
    finally:
        load.stop()
    assert cut > 0, "nothing was under way when it was killed"
