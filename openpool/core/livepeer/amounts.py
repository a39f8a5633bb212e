"""Amounts of LPT and ETH as people write them: whole, exact, with 18 decimals at most."""

import re

from openpool.core.errors import BadMessage
from openpool.core.units import ETHER, decimal_text

LPT = ETHER
"""Base units in one LPT; as many as wei in one ETH."""


def lpt_text(amount_lpt: int) -> str:
    """An amount in full: `12.5 LPT`."""
    return f"{decimal_text(amount_lpt)} LPT"


def eth_text(amount_wei: int) -> str:
    """An amount in full: `0.25 ETH`."""
    return f"{decimal_text(amount_wei)} ETH"


def amount(text: str) -> int:
    """Base units from `12.5`, with or without its unit. Raises BadMessage."""
    match = re.fullmatch(r"([0-9]{1,15})(?:\.([0-9]{1,18}))? ?(?:LPT|ETH)?", text.strip(), re.ASCII)
    if not match:
        raise BadMessage("An amount is a number like 12.5, with at most 18 decimals.")
    return int(match[1]) * ETHER + int((match[2] or "").ljust(18, "0"))
