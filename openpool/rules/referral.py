"""A share for those who brought others into the pool, out of the commission on the others' work."""

import re
from collections.abc import Mapping
from typing import Final

from openpool.core.errors import BadMessage
from openpool.core.money.rules import Adjustment, Round, pay
from openpool.rules import PPM, rate, rule

VERSION: Final = "1"
OPTIONS: Final = {
    "rate": "the part of the commission that goes to who brought the worker; 10% if not said",
    "pair.<n>": "who was brought and by whom, like 0xWorker>0xBringer",
}
_PAIR = re.compile(r"(0x[0-9a-fA-F]{40}) ?> ?(0x[0-9a-fA-F]{40})")


@rule
def adjustments(round: Round, options: Mapping[str, str]) -> list[Adjustment]:
    """Pay each bringer its part, as far as the commission reaches."""
    ppm = rate(options, "rate", "10%")
    brought_by = dict(_pair(name, text) for name, text in options.items() if name[:5] == "pair.")
    members = {member.address: member for member in round.members}
    there_wei, made = round.commission_wei, []
    for worker, bringer in sorted(brought_by.items()):
        if worker not in members or bringer not in members or members[bringer].banned:
            continue
        amount_wei = min(members[worker].commission_wei * ppm // PPM, there_wei)
        there_wei -= amount_wei
        made.append(pay(bringer, amount_wei, f"for bringing {worker}"))
    return made


def _pair(name: str, text: str) -> tuple[str, str]:
    match = _PAIR.fullmatch(text)
    if not match or match[1] == match[2]:
        raise BadMessage(f"the option `{name}` is a pair like 0xWorker>0xBringer")
    return match[1], match[2]
