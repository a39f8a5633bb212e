"""Keeps a part of each share back for some rounds, then releases it; who is banned forfeits it."""

from collections.abc import Mapping
from typing import Final

from openpool.core.money.rules import Adjustment, Member, Round, forfeit, hold, release
from openpool.rules import PPM, rate, rule, whole

VERSION: Final = "1"
OPTIONS: Final = {
    "rate": "the part of each share that is held; 10% if not said",
    "rounds": "how many rounds it is held; 10 if not said",
}


@rule
def adjustments(round: Round, options: Mapping[str, str]) -> list[Adjustment]:
    """What is held of this round, and what becomes of that of earlier ones."""
    ppm, rounds = rate(options, "rate", "10%"), whole(options, "rounds", 10)
    made = []
    for member in round.members:
        held_wei = member.share_wei * ppm // PPM
        if held_wei:
            made.append(hold(member.address, held_wei, f"held until round {round.round + rounds}"))
        made += _ended(member, round.round - rounds)
    return made


def _ended(member: Member, last_round: int) -> list[Adjustment]:
    """Lots of that round and of those before have been held long enough."""
    if member.banned:
        lost_wei = sum(lot.amount_wei for lot in member.held)
        return [forfeit(member.address, lost_wei, "forfeited: banned")] if lost_wei else []
    return [
        release(member.address, lot.amount_wei, f"held since round {lot.round}")
        for lot in member.held
        if lot.round <= last_round
    ]
