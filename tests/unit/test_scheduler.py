"""Choosing a worker: pure functions over the index of free ones."""

from collections import Counter

from openpool.core.capabilities import DEFAULT
from openpool.core.estimate import Estimate
from openpool.core.scheduler import LANES_MAX, Ask, Candidate, Lanes, choose, fastest

UNITS = 2000 * 1280 * 720
TARGET_MS = 1600


def candidate(name: str, took_ms: int, capacity: int = 4) -> Candidate:
    estimate = Estimate(Estimate())
    for _ in range(4):
        estimate.observe(took_ms, UNITS, 0, 0)
    return Candidate(name, estimate, capacity)


def fleet(*candidates: Candidate) -> Lanes:
    lanes = Lanes()
    for each in candidates:
        lanes.of(DEFAULT, "0.9.1").put(each)
    return lanes


def ask(draw: int, without: tuple[str, ...] = ()) -> Ask:
    return Ask(UNITS, TARGET_MS, 0, draw, without)


def picks(lanes: Lanes, times: int, without: tuple[str, ...] = ()) -> Counter[str]:
    """Choose again and again, charging each time, as dispatch does."""
    counted: Counter[str] = Counter()
    for draw in range(times):
        found = choose(lanes.fitting(1, ""), ask(draw, without))
        assert found is not None
        lanes.charge(found, UNITS)
        counted[found.worker] += 1
    return counted


def test_nobody_is_chosen_where_nobody_is_free() -> None:
    """No lanes, or only empty ones, give nobody."""
    lanes = fleet()
    assert choose([], ask(1)) is None
    assert choose(lanes.fitting(1, ""), ask(1)) is None
    assert fastest(lanes.fitting(1, ""), ask(1)) is None


def test_work_goes_by_turns_among_those_in_time() -> None:
    """Fast or a little less fast, whoever is in time gets its share by capacity."""
    lanes = fleet(*(candidate(f"w{n}", 200 + 80 * n, 1 + n % 4) for n in range(8)))
    counted = picks(lanes, 4000)
    for number in range(8):
        fair = 4000 * (1 + number % 4) / 20
        assert 0.85 * fair < counted[f"w{number}"] < 1.15 * fair


def test_a_slow_worker_gets_nothing_while_others_are_in_time() -> None:
    """Fairness ends where the segment would be late."""
    lanes = fleet(candidate("slow", 5000), candidate("a", 300), candidate("b", 400))
    assert picks(lanes, 300)["slow"] == 0


def test_the_fastest_is_taken_if_nobody_is_in_time() -> None:
    """Late is better than never, and less late is better than late."""
    slow = [candidate(f"w{n}", 3000 + 100 * n) for n in range(30)]
    lanes = fleet(*slow)
    chosen = [choose(lanes.fitting(1, ""), ask(draw)) for draw in range(50)]
    assert {each.worker for each in chosen if each} == {"w0"}


def test_the_one_in_time_is_found_among_many_slow() -> None:
    """When the sampled ones will not do, a wider search finds the one that will."""
    lanes = fleet(*(candidate(f"slow{n}", 4000) for n in range(40)), candidate("good", 300))
    assert picks(lanes, 100) == {"good": 100}


def test_excluded_workers_are_never_chosen() -> None:
    """Not by a choice, not by a search, not as the fastest."""
    lanes = fleet(candidate("a", 300), candidate("b", 300))
    assert picks(lanes, 50, without=("a",)) == {"b": 50}
    assert choose(lanes.fitting(1, ""), ask(1, ("a", "b"))) is None
    quick = fastest(lanes.fitting(1, ""), ask(1, ("a",)))
    assert quick is not None
    assert quick.worker == "b"


def test_who_comes_back_does_not_catch_up_at_once() -> None:
    """A worker that was away does not get all the work until it has as much as the others."""
    lanes = fleet(*(candidate(f"w{n}", 300) for n in range(4)))
    picks(lanes, 4000)
    lanes.of(DEFAULT, "0.9.1").put(candidate("back", 300))
    assert picks(lanes, 500)["back"] < 200


def test_a_new_worker_gets_one_job_to_begin_with() -> None:
    """Until its first result is in, a newcomer with work looks too slow for more."""
    newcomer = Candidate("new", Estimate(Estimate()), 2)
    lanes = fleet(newcomer, candidate("old", 300))
    newcomer.busier(1)
    assert picks(lanes, 100)["new"] == 0


def test_the_index_finds_its_places_again() -> None:
    """Putting in and taking out in any order keeps every place right."""
    lanes = fleet(*(candidate(f"w{n}", 300) for n in range(10)))
    lane = lanes.of(DEFAULT, "0.9.1")
    everyone = list(lane.free)
    for each in everyone[::2]:
        lane.take_out(each)
        lane.take_out(each)
    lane.put(everyone[0])
    lane.put(everyone[0])
    assert sorted(c.worker for c in lane.free) == ["w0", "w1", "w3", "w5", "w7", "w9"]
    assert all(lane.free[c.place] is c for c in lane.free)


def test_lanes_are_by_capability_and_version() -> None:
    """A job reaches every lane that can do it, and no other."""
    lanes = Lanes()
    old, new = lanes.of(DEFAULT, "0.8.0"), lanes.of(DEFAULT, "0.9.1")
    hevc = lanes.of(DEFAULT | 1 << 15, "0.9.1")
    assert lanes.fitting(1, "") == [old, new, hevc]
    assert lanes.fitting(1, "0.9.0") == [new, hevc]
    assert lanes.fitting(1 << 15, "") == [hevc]
    assert lanes.fitting(1 << 27, "") == []


def test_strange_capability_sets_do_not_fill_the_memory() -> None:
    """However many sets are invented, the lanes stay few, and nobody is promised too much."""
    lanes = Lanes()
    for number in range(1000):
        bits = DEFAULT | number << 15
        lane = lanes.of(bits, "0.9.1")
        assert lane.bits & ~bits == 0
    assert len(lanes.all) <= LANES_MAX + 1
