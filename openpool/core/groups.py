"""Slot groups: how the workers' capacity is offered upstream, as several registrations.

A registration holds for whatever session the orchestrator puts on it, so its capabilities are what
*every* worker behind it can do, and its capacity cannot change while it lives. Many small groups
make an eviction cheap. Pure functions; `core.upstream` carries the plan out. See
docs/protocol.md, "Slot groups".
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from openpool.core.capabilities import lowest_version
from openpool.core.settings import PoolSettings
from openpool.core.units import PPM, split

SMALL_GROUPS = 2
"""Groups below full size that a class may have before they are put together."""


class Offer(Struct, frozen=True, kw_only=True):
    """Sessions with the same capabilities."""

    bits: int
    version: str
    capacity: int


class LiveGroup(Struct, frozen=True, kw_only=True):
    """A group that is registered, or being registered."""

    name: str
    offer: Offer


class Changes(Struct, frozen=True, kw_only=True):
    """What to do so that the groups follow the plan: open first, then close."""

    opened: tuple[Offer, ...]
    closed: tuple[str, ...]


def plan_groups(
    capacity: Sequence[Offer], weights: Mapping[str, int], settings: PoolSettings
) -> dict[str, list[Offer]]:
    """How many sessions of which class each orchestrator is offered.

    `capacity` is what usable workers have, one entry per lane. A part is held back for second
    tries; every orchestrator is offered at least one session if there is any.
    """
    plan: dict[str, list[Offer]] = {name: [] for name in weights}
    classes = merge_classes(capacity, settings.group_classes_max)
    for offer in classes:
        usable = offer.capacity - offer.capacity * settings.headroom_ppm // PPM
        shares = split(usable, list(weights.values())) if sum(weights.values()) else []
        for name, share in zip(weights, shares, strict=False):
            if share:
                plan[name].append(_sized(offer, share))
    if classes:
        largest = max(classes, key=lambda offer: offer.capacity)
        for offers in plan.values():
            if not offers:
                offers.append(_sized(largest, 1))
    return plan


def merge_classes(capacity: Sequence[Offer], classes_max: int) -> list[Offer]:
    """One class per capability set, the smallest merged with their likest until few are left."""
    by_bits: dict[int, list[Offer]] = {}
    for offer in capacity:
        if offer.capacity > 0 and offer.bits:
            by_bits.setdefault(offer.bits, []).append(offer)
    classes = [_together(bits, offers) for bits, offers in sorted(by_bits.items())]
    while len(classes) > max(1, classes_max):
        smallest = min(classes, key=lambda offer: offer.capacity)
        classes.remove(smallest)
        likest = max(classes, key=lambda offer: (offer.bits & smallest.bits).bit_count())
        classes.remove(likest)
        classes.append(_together(likest.bits & smallest.bits, [likest, smallest]))
    return [offer for offer in classes if offer.bits]


def reconcile(
    live: Sequence[LiveGroup], wanted: Sequence[Offer], settings: PoolSettings
) -> Changes:
    """The fewest openings and closings that turn the live groups into the wanted offer."""
    keep: set[str] = set()
    opened: list[Offer] = []
    for offer in wanted:
        size = group_size(offer.capacity, settings)
        same = [group for group in live if _alike(group.offer, offer)]
        kept = _kept(same, offer.capacity, size)
        missing = offer.capacity - sum(group.offer.capacity for group in kept)
        keep.update(group.name for group in kept)
        opened += [_sized(offer, part) for part in _cut(missing, size)]
    return Changes(
        opened=tuple(opened),
        closed=tuple(group.name for group in live if group.name not in keep),
    )


def group_size(capacity: int, settings: PoolSettings) -> int:
    """Sessions per group: as set, or more where there would be too many groups."""
    return max(settings.slots_per_group, -(-capacity // settings.groups_max))


def _kept(groups: Sequence[LiveGroup], capacity: int, size: int) -> list[LiveGroup]:
    """The groups that fit into the capacity, large ones first; crumbs are not kept if many."""
    kept: list[LiveGroup] = []
    left = capacity
    for group in sorted(groups, key=lambda group: -group.offer.capacity):
        if group.offer.capacity <= left:
            kept.append(group)
            left -= group.offer.capacity
    small = [group for group in kept if group.offer.capacity < size]
    if left and len(small) >= SMALL_GROUPS:
        return [group for group in kept if group.offer.capacity >= size]
    return kept


def _cut(capacity: int, size: int) -> list[int]:
    full, rest = divmod(capacity, size)
    return [size] * full + ([rest] if rest else [])


def _sized(offer: Offer, capacity: int) -> Offer:
    return Offer(bits=offer.bits, version=offer.version, capacity=capacity)


def _alike(one: Offer, other: Offer) -> bool:
    return one.bits == other.bits and one.version == other.version


def _together(bits: int, offers: Sequence[Offer]) -> Offer:
    return Offer(
        bits=bits,
        version=lowest_version([offer.version for offer in offers]),
        capacity=sum(offer.capacity for offer in offers),
    )
