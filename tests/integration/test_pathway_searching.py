"""Eight processes search while one writes: no error, nothing missed, and a position gives one answer to all."""

import time

from lakehouse.pathway.store import Pathway

SEARCH = """
    import random
    from pathlib import Path
    from lakehouse.pathway.store import Pathway
    pathway = Pathway(Path(args[0]))
    chance = random.Random(int(args[1]))
    def found(mode, query, as_of=None):
        page = pathway.search(query, mode=mode, as_of=as_of, limit=15)
        return page.position, [(one.trace.uid, one.score, one.trace.version, one.trace.retired) for one in page]
    say("ready")
    rounds = 0
    while not (Path(args[0]) / "stop").exists():
        mode, query = chance.choice(["lexical", "semantic", "hybrid"]), chance.choice(["late flights", "number 7 late"])
        position, first = found(mode, query)
        assert found(mode, query, position)[1] == first, (mode, query, position)
        said = int((Path(args[0]) / "said").read_text() or 0)
        assert pathway.get(f"{said}").content
        rounds += 1
    say({"rounds": rounds, "answers": [found(mode, query, at) for mode in ("lexical", "semantic", "hybrid")
        for query in ("late flights", "number 7") for at in (50, 333, None)]})
"""


def test_eight_processes_search_while_one_writes(tmp_path, child, monkeypatch):
    pathway = Pathway(tmp_path, sync="never")
    for number in range(40):
        pathway.add(f"flights are late, number {number}", uid=f"{number}")
    said = tmp_path / "said"
    said.write_text("39")
    searching = [child(SEARCH, tmp_path, number) for number in range(8)]
    for one in searching:
        assert one.hear() == "ready"
    until = time.monotonic() + 6
    number = 40
    while time.monotonic() < until or number < 400:
        pathway.add(f"flights are late, number {number}", uid=f"{number}")
        draft = tmp_path / "said.new"
        draft.write_text(f"{number}")
        draft.replace(said)
        if number % 3 == 0:
            pathway.update(f"{number // 2}", f"planes left on time, number {number}")
            pathway.retire(f"{number // 3}")
        if number % 150 == 0:
            pathway.compact()
        number += 1
    (tmp_path / "stop").touch()
    ends = [one.end()[-1] for one in searching]
    assert min(end["rounds"] for end in ends) > 0
    assert all(end["answers"] == ends[0]["answers"] for end in ends)
    (tmp_path / "traces.index").unlink()
    for file in tmp_path.glob("traces.wordllama*"):
        file.unlink()
    again = child(SEARCH, tmp_path, 9)
    assert again.hear() == "ready"
    assert again.end()[-1]["answers"] == ends[0]["answers"]
