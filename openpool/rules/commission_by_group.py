"""Commission by the group of the worker, as a rule: for groups whose commission is to differ from
what was taken job by job."""

from collections.abc import Mapping
from typing import Final

from openpool.core.money.rules import Adjustment, Member, Round, charge, pay
from openpool.rules import PPM, rate, rule

VERSION: Final = "1"
OPTIONS: Final = {"group.<name>": "the commission of this group, like 10%"}
_GROUP = "group."


@rule
def adjustments(round: Round, options: Mapping[str, str]) -> list[Adjustment]:
    """Move the difference between the commission taken and the one that is wanted."""
    rates = {
        name.removeprefix(_GROUP): rate(options, name, "0%")
        for name in options
        if name.startswith(_GROUP)
    }
    there_wei, made = round.commission_wei, []
    for member in round.members:
        more_wei = _wanted(member, rates)
        if more_wei > 0:
            more_wei = min(more_wei, member.share_wei)
            made.append(charge(member.address, more_wei, "commission of the group"))
        elif more_wei < 0:
            more_wei = -min(-more_wei, there_wei)
            made.append(pay(member.address, -more_wei, "commission of the group"))
        there_wei += more_wei
    return made


def _wanted(member: Member, rates: Mapping[str, int]) -> int:
    """By how much the commission of this member should be higher (or, below zero, lower)."""
    if not member.worth_wei:
        return 0
    gross_wei = member.share_wei + member.commission_wei
    ppm_worth = sum(rates[g] * worth for g, worth in member.groups.items() if g in rates)
    worth = sum(worth for g, worth in member.groups.items() if g in rates)
    wanted = gross_wei * ppm_worth // (member.worth_wei * PPM)
    return wanted - member.commission_wei * worth // member.worth_wei
