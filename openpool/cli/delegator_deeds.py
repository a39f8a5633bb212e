"""`openpool delegator stake|unstake|claim|withdraw`: the deeds of a delegator.

Without `--keystore` the transactions are printed unsigned, for any wallet. With it they are shown,
confirmed, signed and sent one after another. What would cost earnings is refused by its name
unless `--anyway` is given. Must not keep anything.
"""

import asyncio
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.options import ConfigFile, Json, Set, examples, load, options, typed
from openpool.cli.output import ether, note, print_json, show_table
from openpool.core.errors import NotAllowed, SetupError

if TYPE_CHECKING:
    from openpool.chain.interface import Chain
    from openpool.config.settings import Config
    from openpool.core.livepeer.delegation import Plan, Wish
    from openpool.treasury.delegator_sending import Sent
    from openpool.wallet import Wallet

Rpc = Annotated[
    str,
    typer.Option("--rpc", metavar="URL", help="An Ethereum endpoint; else chain.endpoints."),
]
From = Annotated[
    str, typer.Option("--from", metavar="ADDRESS", help="Your account; else the keystore's.")
]
Keystore = Annotated[
    Path | None,
    typer.Option("--keystore", metavar="FILE", help="Sign and send with this key."),
]
Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--passphrase",
        "--passphrase-file",
        metavar="FILE",
        help="Its passphrase (mode 0600); - is stdin.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Send without asking.")]
Anyway = Annotated[bool, typer.Option("--anyway", help="Do it although it costs earnings.")]
Orchestrator = Annotated[
    str, typer.Option("--to", metavar="ADDRESS", help="The orchestrator; else this pool's.")
]
LockNumber = Annotated[
    int | None, typer.Option("--lock", metavar="N", min=0, help="The number of an unbonding lock.")
]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="Like 12.5; all if left out.")]


class Kind(StrEnum):
    """What can be withdrawn."""

    FEES = "fees"
    STAKE = "stake"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a deed is to be done: the options that all deeds have."""

    sender: From = ""
    keystore: Keystore = None
    passphrase: Passphrase = None
    yes: Yes = False
    anyway: Anyway = False
    rpc: Rpc = ""
    config: ConfigFile = None
    assignments: Set = None
    as_json: Json = False


deed = options(Way)


def register(delegator: typer.Typer) -> None:
    """Add the deeds to the group."""
    for name, command, lines in (
        (
            "stake",
            stake,
            (
                "openpool delegator stake 100 --from 0xYOURS > unsigned.json",
                "openpool delegator stake 100 --keystore key.json --passphrase pass.txt",
                "openpool delegator stake --lock 2 --keystore key.json",
            ),
        ),
        ("unstake", unstake, ("openpool delegator unstake 50 --from 0xYOURS",)),
        ("claim", claim, ("openpool delegator claim --keystore key.json --yes",)),
        (
            "withdraw",
            withdraw,
            (
                "openpool delegator withdraw fees --from 0xYOURS",
                "openpool delegator withdraw fees 0.25 --recipient 0xOTHER",
                "openpool delegator withdraw stake --keystore key.json",
            ),
        ),
    ):
        delegator.command(name, epilog=examples(*lines))(command)


@deed
def stake(
    way: Way,
    amount: Amount = "",
    to: Orchestrator = "",
    lock: LockNumber = None,
) -> None:
    """Delegate LPT; with --lock, LPT that is waiting to be withdrawn.

    Stake that is with another orchestrator moves along. 0 moves it and adds nothing.
    """
    if lock is not None and amount:
        raise SetupError("A lock is staked whole: give either an amount or --lock.")
    do(way, "stake" if lock is None else "restake", amount=amount, to=to, lock=lock)


@deed
def unstake(way: Way, amount: Amount = "") -> None:
    """Take LPT out of the stake; after the unbonding time it can be withdrawn."""
    do(way, "unstake", amount=amount)


@deed
def claim(way: Way) -> None:
    """Claim earnings: rewards become stake, fees can be withdrawn."""
    do(way, "claim")


@deed
def withdraw(
    way: Way,
    what: Annotated[
        Kind, typer.Argument(metavar="WHAT", help="Fees (ETH), or stake (LPT) that was unstaked.")
    ],
    amount: Amount = "",
    recipient: Annotated[
        str, typer.Option("--recipient", metavar="ADDRESS", help="Who gets the fees; else you.")
    ] = "",
    lock: LockNumber = None,
) -> None:
    """Withdraw fees, or unbonded LPT whose time has come."""
    if what is Kind.STAKE and (amount or recipient):
        raise SetupError("Unbonded stake is withdrawn lock by lock, to your account; use --lock.")
    if what is Kind.FEES and lock is not None:
        raise SetupError("Fees have no locks; leave out --lock.")
    do(way, f"withdraw-{what.value}", amount=amount, to=recipient, lock=lock)


def do(way: Way, deed: str, *, amount: str = "", to: str = "", lock: int | None = None) -> None:
    """Plan the deed, say what it means, and print it or send it."""
    from msgspec import convert

    from openpool.core.livepeer.amounts import amount as amount_of
    from openpool.core.livepeer.delegation import Wish
    from openpool.core.livepeer.delegators import Deed

    wallet = _wallet(way)
    address = way.sender or (wallet.address if wallet else "")
    if not address:
        raise SetupError("Say whose transactions these are: --from ADDRESS or --keystore FILE.")
    wish = Wish(
        deed=convert(deed, Deed),
        address=address,
        amount=typed(amount_of, amount) if amount else None,
        to=to,
        lock=lock,
    )
    asyncio.run(_carry_out(way, wish, wallet))


async def _carry_out(way: Way, wish: "Wish", wallet: "Wallet | None") -> None:
    from openpool.cli.chains import delegations, opened

    settings = load(way.config, way.assignments).config
    async with opened(settings, way.rpc) as (chain, livepeer):
        plan = await delegations(settings, chain, livepeer).plan(wish)
        _warn(plan, way.anyway)
        if wallet is None:
            print_json(unsigned(plan))
            return
        _confirm(plan, way.yes)
        done = await _send(settings, chain, wallet, plan)
    if way.as_json:
        print_json([_outcome(each) for each in done])
    else:
        show_table(
            ["transaction", "did", "block>", "cost>"],
            [
                (each.tx, each.call.name, each.receipt.block, ether(each.receipt.fee_wei))
                for each in done
                if each.receipt
            ],
        )


def _warn(plan: "Plan", anyway: bool) -> None:
    """Say what to know; raises NotAllowed for a loss that nobody has accepted."""
    from openpool.core.livepeer.amounts import lpt_text

    for warning in plan.warnings:
        loss = f" That is {lpt_text(warning.loses_lpt)}." if warning.loses_lpt else ""
        text = f"{warning.code}: {warning.text}{loss}"
        if warning.level == "loss" and not anyway:
            raise NotAllowed(f"{text} --anyway does it all the same.")
        note(text)


def unsigned(plan: "Plan") -> dict[str, object]:
    """The plan as JSON that any wallet can sign, in the order in which it must be sent."""
    return {
        "transactions": [
            {
                "chainId": plan.chain_id,
                "from": plan.address,
                "to": call.to,
                "data": f"0x{call.data.hex()}",
                "value": str(call.value_wei),
                "function": call.name,
                "what": call.what,
            }
            for call in plan.calls
        ],
        "warnings": [
            {"code": each.code, "text": each.text, "losesLpt": str(each.loses_lpt)}
            for each in plan.warnings
        ],
    }


def _wallet(way: Way) -> "Wallet | None":
    if way.keystore is None:
        return None
    from openpool.wallet import open_wallet, passphrase_from

    passphrase = passphrase_from(way.passphrase) if way.passphrase else _typed
    return open_wallet(way.keystore, passphrase)


def _typed() -> str:
    if not sys.stdin.isatty():
        raise SetupError("The keystore needs a passphrase: name its file with --passphrase.")
    return str(typer.prompt("Passphrase", hide_input=True, err=True))


def _confirm(plan: "Plan", yes: bool) -> None:
    for number, call in enumerate(plan.calls, start=1):
        note(f"{number}. {call.what}")
    note(f"From {plan.address}, on chain {plan.chain_id}.")
    if not yes and not sys.stdin.isatty():
        raise SetupError("Nobody can be asked here; add --yes to send without asking.")
    if not yes:
        typer.confirm("Sign and send?", abort=True, err=True)


async def _send(settings: "Config", chain: "Chain", wallet: "Wallet", plan: "Plan") -> "list[Sent]":
    from openpool.chain.signers import WalletSigner
    from openpool.treasury.delegator_sending import Limits, send_all

    limits = Limits(
        gas_margin_ppm=settings.chain.gas_margin,
        gas_max=settings.chain.gas_max,
        gas_price_max_wei=settings.chain.gas_price_max,
    )
    done = []
    async for each in send_all(chain, WalletSigner(wallet), plan, limits):
        if each.receipt is None:
            note(f"{each.call.name} sent as {each.tx}, waiting until it is mined …")
        else:
            done.append(each)
    return done


def _outcome(sent: "Sent") -> dict[str, object]:
    assert sent.receipt is not None
    return {
        "tx": sent.tx,
        "function": sent.call.name,
        "what": sent.call.what,
        "block": sent.receipt.block,
        "feeWei": str(sent.receipt.fee_wei),
    }
