"""Inflation rewards: who gets which part of one, and when a missing one is worth a warning. Pure.

The shells around this are `treasury.closing` and `treasury.reward`.
"""

from collections.abc import Mapping
from typing import Literal

from openpool.core.units import PPM, split

Level = Literal["ok", "warn", "bad"]


def share_reward(own_lpt: int, share_ppm: int, work_wei: Mapping[str, int]) -> dict[str, int]:
    """Each worker's part of the orchestrator's own reward, by the verified work of the round.

    The sum is exactly `share_ppm` of the reward, rounded down; nothing if nobody worked, since
    then it all stays with the operator. Addresses without a part are left out.
    """
    shared_lpt = own_lpt * share_ppm // PPM
    workers = sorted(address for address, wei in work_wei.items() if wei > 0)
    if not workers or not shared_lpt:
        return {}
    parts = split(shared_lpt, [work_wei[address] for address in workers])
    return {address: part for address, part in zip(workers, parts, strict=True) if part}


def passed_ppm(block: int, start_block: int, length: int) -> int:
    """How much of a round has passed; all blocks are of the chain by which rounds are counted."""
    return min(max(block - start_block, 0) * PPM // length, PPM) if length else 0


def reward_level(*, passed_ppm: int, late_ppm: int) -> Level:
    """How bad it is that reward was not called yet: bad in the second half of the time that is
    left from `late_ppm` on."""
    if passed_ppm < late_ppm:
        return "ok"
    return "bad" if passed_ppm * 2 >= late_ppm + PPM else "warn"
