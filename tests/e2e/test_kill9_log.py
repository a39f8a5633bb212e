"""A pool that is killed in the middle of writing loses nothing it has acknowledged."""

from pathlib import Path

from kill9 import kill_many

from openpool.store.sqlite import SqliteStore

ROUNDS = 10


def test_kill_9_loses_no_acknowledged_event(tmp_path: Path) -> None:
    """Ten times killed at random moments: nothing lost, no gap, chain and books intact."""
    losses = kill_many(tmp_path, ROUNDS, seed=9)
    assert losses.rounds == ROUNDS
    assert losses.acknowledged >= ROUNDS
    assert losses.lost == 0
    assert losses.faults == ()
    SqliteStore(tmp_path).close()
