"""`kill -9` of writers of the pathway memory at random moments: fifty rounds."""

import remembering


def test_fifty_rounds(tmp_path):
    rounds = remembering.Remembering(tmp_path, seed=5)
    try:
        summary = rounds.run(50)
    finally:
        rounds.close()
    print(summary)
    assert (summary.rounds, summary.rebuilt) == (50, 5)
    assert summary.acknowledged > 200  # they were really working when they were killed
    assert summary.compactions >= 25
