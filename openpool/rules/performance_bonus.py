"""A bonus for those whose attempts hardly ever fail, out of commission."""

from collections.abc import Mapping
from typing import Final

from openpool.core.money.rules import Adjustment, Member, Round, pay
from openpool.rules import PPM, rate, rule, whole

VERSION: Final = "1"
OPTIONS: Final = {
    "rate": "the bonus, as a part of the share; 5% if not said",
    "success": "the least part of attempts that went well; 99% if not said",
    "jobs": "the fewest jobs in the round; 100 if not said",
}


@rule
def adjustments(round: Round, options: Mapping[str, str]) -> list[Adjustment]:
    """Pay the bonus; where commission does not suffice for all, everybody gets the same part."""
    bonus_ppm = rate(options, "rate", "5%")
    success_ppm = rate(options, "success", "99%")
    jobs_min = whole(options, "jobs", 100)
    wanted = {
        member.address: member.share_wei * bonus_ppm // PPM
        for member in round.members
        if member.jobs >= jobs_min and _did_well(member, success_ppm)
    }
    total_wei = sum(wanted.values())
    there_wei = min(total_wei, round.commission_wei)
    return [
        pay(address, wei * there_wei // total_wei, "bonus for reliable work")
        for address, wei in wanted.items()
        if wei
    ]


def _did_well(member: Member, success_ppm: int) -> bool:
    return not member.banned and member.jobs * PPM >= (member.jobs + member.failed) * success_ppm
