"""Slot groups: the plan, and the way to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core.capabilities import DEFAULT
from openpool.core.groups import LiveGroup, Offer, merge_classes, plan_groups, reconcile
from openpool.core.settings import PoolSettings

SETTINGS = PoolSettings(slots_per_group=4, headroom_ppm=100_000, groups_max=10)
HEVC = DEFAULT | 1 << 15


def offer(capacity: int, bits: int = DEFAULT, version: str = "0.9.1") -> Offer:
    return Offer(bits=bits, version=version, capacity=capacity)


def follow(live: list[LiveGroup], wanted: list[Offer]) -> list[LiveGroup]:
    """The groups after the changes."""
    changes = reconcile(live, wanted, SETTINGS)
    kept = [group for group in live if group.name not in changes.closed]
    names = (f"n{number}" for number in range(10**6))
    taken = {group.name for group in live}
    fresh = (name for name in names if name not in taken)
    return kept + [LiveGroup(name=next(fresh), offer=each) for each in changes.opened]


def test_a_tenth_is_held_back_and_the_rest_shared() -> None:
    """Headroom first, then by weight."""
    plan = plan_groups([offer(40)], {"a": 2, "b": 1}, SETTINGS)
    assert [o.capacity for o in plan["a"]] == [24]
    assert [o.capacity for o in plan["b"]] == [12]


def test_everybody_is_offered_something() -> None:
    """One session for two orchestrators is offered to both; no session to none."""
    plan = plan_groups([offer(1)], {"a": 1, "b": 1}, SETTINGS)
    assert [len(offers) for offers in plan.values()] == [1, 1]
    assert plan_groups([offer(0)], {"a": 1}, SETTINGS) == {"a": []}
    assert plan_groups([], {"a": 1}, SETTINGS) == {"a": []}


def test_a_class_promises_only_what_all_its_workers_can() -> None:
    """Merged classes are intersected; the smallest goes to its likest."""
    classes = merge_classes([offer(9), offer(5, HEVC), offer(1, HEVC | 1 << 16)], 2)
    assert {(o.bits, o.capacity) for o in classes} == {(DEFAULT, 9), (HEVC, 6)}


def test_versions_of_a_class_are_its_lowest() -> None:
    """A group is registered as the oldest of its workers."""
    (together,) = merge_classes([offer(1, version="0.10.0"), offer(1, version="0.9.1")], 4)
    assert together == offer(2, version="0.9.1")


def test_a_small_change_opens_a_small_group() -> None:
    """What lives stays; only the difference is opened."""
    live = follow([], [offer(8)])
    changes = reconcile(live, [offer(9)], SETTINGS)
    assert changes.closed == ()
    assert [o.capacity for o in changes.opened] == [1]


def test_crumbs_are_put_together() -> None:
    """Many small groups become a full one in the end."""
    groups: list[LiveGroup] = []
    for capacity in range(1, 40):
        groups = follow(groups, [offer(capacity)])
        assert sum(group.offer.capacity for group in groups) == capacity
        assert sum(group.offer.capacity < 4 for group in groups) <= 3


def test_a_changed_class_is_registered_anew() -> None:
    """Capabilities of a live group cannot change: a new one opens, the old one closes."""
    live = follow([], [offer(4, HEVC)])
    changes = reconcile(live, [offer(4)], SETTINGS)
    assert changes.opened == (offer(4),)
    assert changes.closed == (live[0].name,)


def test_many_sessions_make_large_groups_not_many() -> None:
    """An orchestrator does not get thousands of streams."""
    assert len(follow([], [offer(40_000)])) == 10


@given(st.lists(st.integers(0, 60), max_size=12))
def test_the_offer_is_followed_exactly(capacities: list[int]) -> None:
    """After each change the groups offer what was wanted, and a second look changes nothing."""
    groups: list[LiveGroup] = []
    for capacity in capacities:
        wanted = [offer(capacity)] if capacity else []
        groups = follow(groups, wanted)
        assert sum(group.offer.capacity for group in groups) == capacity
        assert reconcile(groups, wanted, SETTINGS).opened == ()
        assert reconcile(groups, wanted, SETTINGS).closed == ()


@given(
    st.lists(st.tuples(st.integers(1, 30), st.sampled_from([DEFAULT, HEVC, 3])), max_size=8),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 5), min_size=1),
)
def test_never_more_is_offered_than_there_is(
    lanes: list[tuple[int, int]], weights: dict[str, int]
) -> None:
    """Apart from the one session that nobody goes without, the offer stays below the capacity."""
    plan = plan_groups([offer(capacity, bits) for capacity, bits in lanes], weights, SETTINGS)
    offered = sum(o.capacity for offers in plan.values() for o in offers)
    assert offered <= sum(capacity for capacity, _ in lanes) + len(weights)
    assert all(plan.values()) == bool(lanes)


@pytest.mark.parametrize("classes_max", [1, 2, 3])
def test_few_classes_stay(classes_max: int) -> None:
    """However many sets there are, only so many are registered."""
    lanes = [offer(n + 1, DEFAULT | 1 << (15 + n)) for n in range(6)]
    classes = merge_classes(lanes, classes_max)
    assert len(classes) == classes_max
    assert sum(each.capacity for each in classes) == 21
    assert all(each.bits & DEFAULT == DEFAULT for each in classes)
