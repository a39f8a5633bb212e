"""The transactions of a delegator, unsigned: what to call, and in one sentence what it does.

Encodes calls whose arguments are numbers and addresses, which is all that a delegator needs.
Must not sign or send.
"""

from functools import lru_cache

from eth_utils.crypto import keccak
from msgspec import Struct

from openpool.core.livepeer.amounts import eth_text, lpt_text
from openpool.core.livepeer.bonding import NOBODY
from openpool.core.livepeer.delegators import Lock, Ranked, hints, moved

Argument = int | str
"""A uint256, or an address (`0x…`)."""


class Unsigned(Struct, frozen=True, kw_only=True):
    """A call to be signed by the delegator."""

    name: str
    """Of the contract's function."""
    what: str
    to: str
    data: bytes
    value_wei: int = 0


class Contracts(Struct, frozen=True, kw_only=True):
    """Where the protocol lives, as its Controller says."""

    bonding_manager: str
    token: str


@lru_cache(maxsize=64)
def selector(signature: str) -> bytes:
    """The first four bytes of a call, from a signature such as `unbond(uint256)`."""
    return keccak(signature.encode())[:4]


def call_data(signature: str, *arguments: Argument) -> bytes:
    """The data of a call. Raises ValueError if the arguments do not fit the signature."""
    kinds = signature[signature.index("(") + 1 : -1].split(",")
    words = (_word(kind, each) for kind, each in zip(kinds, arguments, strict=True))
    return selector(signature) + b"".join(words)


def _word(kind: str, argument: Argument) -> bytes:
    if kind == "address" and isinstance(argument, str):
        return bytes.fromhex(argument.removeprefix("0x")).rjust(32, b"\0")
    if kind == "uint256" and isinstance(argument, int):
        return argument.to_bytes(32, "big")
    raise ValueError(f"{argument!r} is no {kind}")


def stake(
    at: Contracts,
    ranked: Ranked,
    *,
    amount_lpt: int,
    to: str,
    to_stake_lpt: int,
    moves_from: str = NOBODY,
    moves_lpt: int = 0,
    allowance_lpt: int = 0,
) -> list[Unsigned]:
    """Delegate LPT, and move along what is delegated to somebody else now (`moves_from`).

    `to_stake_lpt` is the stake that `to` has without it, `allowance_lpt` what the contracts may
    take already.
    """
    old = (NOBODY, NOBODY)
    if moves_lpt:
        old = hints(ranked, moves_from, dict(ranked).get(moves_from, 0) - moves_lpt)
        ranked = moved(ranked, moves_from, -moves_lpt)
    new = hints(ranked, to, to_stake_lpt + moves_lpt + amount_lpt)
    what = f"Delegates {lpt_text(amount_lpt)} to {to}."
    if moves_lpt:
        what += f" Moves your whole stake there, {lpt_text(moves_lpt)}, from {moves_from}."
    signature = "bondWithHint(uint256,address,address,address,address,address)"
    bond = _call(at.bonding_manager, what, signature, amount_lpt, to, *old, *new)
    return [_approve(at, amount_lpt), bond] if allowance_lpt < amount_lpt else [bond]


def unstake(
    at: Contracts,
    ranked: Ranked,
    *,
    amount_lpt: int,
    delegate: str,
    delegate_stake_lpt: int,
    withdraw_round: int,
) -> Unsigned:
    """Take LPT out of the stake; it earns no more, and can be withdrawn from a round on."""
    return _call(
        at.bonding_manager,
        f"Unbonds {lpt_text(amount_lpt)}; it can be withdrawn from round {withdraw_round} on.",
        "unbondWithHint(uint256,address,address)",
        amount_lpt,
        *hints(ranked, delegate, delegate_stake_lpt - amount_lpt),
    )


def restake(
    at: Contracts, ranked: Ranked, *, lock: Lock, to: str, to_stake_lpt: int, is_unbonded: bool
) -> Unsigned:
    """Delegate LPT again that is waiting to be withdrawn; `is_unbonded`: nothing else is staked."""
    new = hints(ranked, to, to_stake_lpt + lock.amount_lpt)
    what = f"Delegates the {lpt_text(lock.amount_lpt)} of lock {lock.lock} to {to} again."
    if is_unbonded:
        signature = "rebondFromUnbondedWithHint(address,uint256,address,address)"
        return _call(at.bonding_manager, what, signature, to, lock.lock, *new)
    signature = "rebondWithHint(uint256,address,address)"
    return _call(at.bonding_manager, what, signature, lock.lock, *new)


def claim(at: Contracts, now: int) -> Unsigned:
    """Add rewards to the stake, and fees to what can be withdrawn."""
    return _call(
        at.bonding_manager,
        f"Claims your earnings up to round {now}: rewards become stake, fees can be withdrawn.",
        "claimEarnings(uint256)",
        now,
    )


def withdraw_fees(at: Contracts, recipient: str, amount_wei: int) -> Unsigned:
    """Send earned ETH to any plain account."""
    return _call(
        at.bonding_manager,
        f"Withdraws fees of {eth_text(amount_wei)} to {recipient}.",
        "withdrawFees(address,uint256)",
        recipient,
        amount_wei,
    )


def withdraw_stake(at: Contracts, lock: Lock) -> Unsigned:
    """Send LPT whose waiting time is over back to its owner."""
    return _call(
        at.bonding_manager,
        f"Withdraws the {lpt_text(lock.amount_lpt)} of lock {lock.lock} to your account.",
        "withdrawStake(uint256)",
        lock.lock,
    )


def _approve(at: Contracts, amount_lpt: int) -> Unsigned:
    return _call(
        at.token,
        f"Allows the Livepeer contracts to take {lpt_text(amount_lpt)} from your account.",
        "approve(address,uint256)",
        at.bonding_manager,
        amount_lpt,
    )


def _call(to: str, what: str, signature: str, *arguments: Argument) -> Unsigned:
    name = signature.partition("(")[0]
    return Unsigned(name=name, what=what, to=to, data=call_data(signature, *arguments))
