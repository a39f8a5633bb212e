"""`openpool delegator show` and `simulate`: what delegating to an orchestrator brings.

Reads the chain only. The deeds of the same group are in `cli.delegator_deeds`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from openpool.cli import delegator_deeds
from openpool.cli.groups import Group
from openpool.cli.options import ConfigFile, Json, Set, examples, load, typed
from openpool.cli.output import (
    about_percent,
    ether,
    lpt,
    note,
    percent,
    print_json,
    show_facts,
    show_table,
)

if TYPE_CHECKING:
    from openpool.core.livepeer.delegation import Account, Profile
    from openpool.core.livepeer.outlook import Outlook
    from openpool.treasury.delegators import Delegations
    from openpool.web.delegation import Estimates

T = TypeVar("T")
PAST = 10
"""Rounds that are shown to a person."""

delegator = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    epilog=examples("openpool delegator show", "openpool delegator simulate 1000"),
)
Rpc = delegator_deeds.Rpc


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    delegator_deeds.register(delegator)
    app.add_typer(delegator, name="delegator", help="Stake LPT with an orchestrator.")


@delegator.command(
    "show",
    epilog=examples("openpool delegator show", "openpool delegator show 0xYOURS --json"),
)
def show(
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="A delegator; else the pool's orchestrators.")
    ] = "",
    orchestrator: delegator_deeds.Orchestrator = "",
    rpc: Rpc = "",
    config: ConfigFile = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Show an orchestrator's cuts, stake, rank and past rounds, or what a delegator has."""
    from openpool.core.enrolment import checked_address
    from openpool.web.delegation import account_view, profile_view

    if address:
        wanted = typed(checked_address, address)
        found = _ask(config, assignments, rpc, "", lambda known: known.account(wanted))
        if as_json:
            print_json(account_view(found))
        else:
            _show_account(found)
        return
    profiles = _ask(config, assignments, rpc, orchestrator, _profiles)
    if as_json:
        print_json([profile_view(each) for each in profiles])
        return
    for each in profiles:
        _show_profile(each)


@delegator.command(
    "simulate",
    epilog=examples(
        "openpool delegator simulate 1000",
        "openpool delegator simulate 1000 --rounds 90 --fees '0.02 ETH'",
    ),
)
def simulate(
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="LPT to stake, like 1000.")],
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", min=1, max=5000, help="How many.")
    ] = 30,
    reward_cut: Annotated[
        str, typer.Option("--reward-cut", metavar="RATE", help="Like 25%; else the chain's.")
    ] = "",
    fee_share: Annotated[
        str, typer.Option("--fee-share", metavar="RATE", help="Like 50%; else the chain's.")
    ] = "",
    fees: Annotated[
        str, typer.Option("--fees", metavar="ETH", help="Fees of a round; else the mean so far.")
    ] = "",
    reward_calls: Annotated[
        str, typer.Option("--reward-calls", metavar="RATE", help="Else as in the past.")
    ] = "",
    orchestrator: delegator_deeds.Orchestrator = "",
    rpc: Rpc = "",
    config: ConfigFile = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Work out what new stake would earn, by the protocol's own rules."""
    from msgspec.structs import replace

    from openpool.core.livepeer.amounts import amount as amount_of
    from openpool.web.delegation import estimates

    stake_lpt = typed(amount_of, amount)
    profile = _ask(config, assignments, rpc, orchestrator, _profiles)[0]
    outlook = _changed(profile.outlook, reward_cut, fee_share, fees, reward_calls)
    told = estimates(replace(profile, outlook=outlook), stake_lpt, [rounds])
    if as_json:
        print_json(told)
        return
    _show_estimates(told, amount)
    if not profile.standing.rank:
        note("This orchestrator is not in the active set, so stake with it earns nothing.")


def _changed(
    outlook: "Outlook", reward_cut: str, fee_share: str, fees: str, reward_calls: str
) -> "Outlook":
    """The outlook with what was given on the command line."""
    from msgspec.structs import replace

    from openpool.core.livepeer.amounts import amount as amount_of

    changes = {
        "reward_cut_ppm": rate(reward_cut, "--reward-cut") if reward_cut else None,
        "fee_share_ppm": rate(fee_share, "--fee-share") if fee_share else None,
        "reward_calls_ppm": rate(reward_calls, "--reward-calls") if reward_calls else None,
        "fees_wei": typed(amount_of, fees) if fees else None,
    }
    return replace(outlook, **{name: value for name, value in changes.items() if value is not None})


def rate(text: str, option: str) -> int:
    """Parts per million from `25%` or `0.25`. Raises SetupError."""
    from openpool.config import kinds
    from openpool.core.errors import SetupError

    try:
        found = kinds.RATE.parse(text, Path())
    except ValueError:
        raise SetupError(f"{option} {text}: write it as {kinds.RATE.allowed}.") from None
    assert isinstance(found, int)
    return found


async def _profiles(known: "Delegations") -> "list[Profile]":
    from openpool.core.errors import Unavailable

    await known.refresh()
    if known.problem:
        raise Unavailable(known.problem)
    return known.profiles()


def _ask(
    config: Path | None,
    assignments: list[str] | None,
    rpc: str,
    orchestrator: str,
    question: "Callable[[Delegations], Coroutine[object, object, T]]",
) -> T:
    """What the chain answers."""
    from openpool.cli.chains import delegations, opened

    async def ask() -> T:
        settings = load(config, assignments).config
        async with opened(settings, rpc) as (chain, livepeer):
            return await question(delegations(settings, chain, livepeer, orchestrator))

    return asyncio.run(ask())


def _show_profile(profile: "Profile") -> None:
    from openpool.core.livepeer.amounts import lpt_text
    from openpool.core.livepeer.delegators import reward_calls_ppm

    place, calls = profile.standing, reward_calls_ppm(profile.past)
    show_facts(
        [
            ("orchestrator", f"{profile.address} {profile.name}".rstrip()),
            ("round", f"{profile.round}, {_round_state(profile)}"),
            ("active", "yes" if profile.is_active else "no"),
            ("reward cut", f"{percent(profile.reward_cut_ppm)} kept by the orchestrator"),
            ("fee share", f"{percent(profile.fee_share_ppm)} to stake"),
            ("stake", lpt_text(profile.stake_lpt)),
            ("rank", f"{place.rank or 'none'} of {place.size}, at most {place.size_max}"),
            ("reward calls", "—" if calls is None else about_percent(calls)),
        ]
    )
    show_table(
        ["round>", "reward>", "to all stake>", "fees>"],
        [
            (
                each.number,
                lpt(each.reward_lpt) if each.rewarded else "missed",
                lpt(each.delegators_lpt),
                ether(each.fees_wei),
            )
            for each in profile.past[-PAST:]
        ],
        empty="No round is over yet.",
    )


def _round_state(profile: "Profile") -> str:
    if not profile.is_initialized:
        return "not started yet"
    return "reward called" if profile.has_rewarded else "reward not called yet"


def _show_account(account: "Account") -> None:
    from openpool.core.livepeer.amounts import eth_text, lpt_text
    from openpool.core.livepeer.bonding import NOBODY

    show_facts(
        [
            ("account", account.address),
            ("round", account.round),
            ("status", account.status),
            ("delegates to", "nobody" if account.delegate == NOBODY else account.delegate),
            ("stake", lpt_text(account.stake_lpt)),
            ("of that not claimed", lpt_text(account.stake_lpt - account.bonded_lpt)),
            ("fees", eth_text(account.fees_wei)),
            ("can be withdrawn now", eth_text(account.withdrawable_wei)),
            ("not staked", lpt_text(account.balance_lpt)),
        ]
    )
    if account.locks:
        show_table(
            ["lock>", "amount>", "from round>"],
            [(each.lock, lpt_text(each.amount_lpt), each.withdraw_round) for each in account.locks],
        )


def _show_estimates(told: "Estimates", amount: str) -> None:
    show_table(
        ["rounds>", "rewards>", "fees>", "growth>"],
        [
            (
                f"{each.rounds} (a year)" if each.rounds == told.rounds_per_year else each.rounds,
                lpt(each.rewards_lpt),
                ether(each.fees_wei),
                about_percent(each.growth_ppm),
            )
            for each in told.estimates
        ],
    )
    note(f"For {amount} LPT, from the next round on, if everything else stays as it is.")
