"""`openpool chain status`: whether the chain can be reached and believed, and what is on it.

Reads only. Must not open the wallet: its address stands in the keystore in the clear.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.groups import Group
from openpool.cli.options import ConfigFile, Json, Set, examples, load
from openpool.cli.output import ether, grouped, note, print_json, show_facts, show_table

if TYPE_CHECKING:
    from openpool.chain.status import ChainStatus
    from openpool.config.settings import Config

chain = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    epilog=examples("openpool chain status"),
)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(chain, name="chain", help="The chain that moves the money.")


@chain.command(
    "status",
    epilog=examples(
        "openpool chain status",
        "openpool chain status --json",
        "openpool chain status --rpc http://127.0.0.1:8545 --set chain.id=31337",
    ),
)
def status(
    rpc: Annotated[str, typer.Option("--rpc", metavar="URL", help="Ask this endpoint only.")] = "",
    config: ConfigFile = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Show the endpoints, the contracts, the round, the price of an ETH and the hot wallet.

    Exit code 1 if anything of it cannot be known, or if endpoints do not agree.
    """
    found = asyncio.run(_look(load(config, assignments).config, rpc))
    if as_json:
        print_json(found)
    else:
        _show(found)
    if not found.ok:
        raise typer.Exit(1)


async def _look(settings: "Config", rpc: str) -> "ChainStatus":
    from openpool.chain.status import chain_status
    from openpool.cli.chains import opened_chain

    chosen = settings.chain
    async with opened_chain(settings, rpc) as opened:
        return await chain_status(
            opened,
            controller=chosen.controller,
            price_feed="" if settings.ai.usd_per_eth else chosen.price_feed,
            wallet=_wallet(settings),
        )


def _wallet(settings: "Config") -> str:
    from openpool.wallet import keystore_address

    payouts = settings.payouts
    if payouts.signer_url:
        return payouts.signer_address
    return "" if payouts.keystore == Path() else keystore_address(payouts.keystore)


def _show(found: "ChainStatus") -> None:
    from openpool.core.livepeer.amounts import lpt_text

    show_table(
        ["endpoint", "state~", "block>", "final>", "lag>", "ms>"],
        [
            (e.name, "ok", grouped(e.latest), grouped(e.finalized), e.lag, e.answered_ms)
            if e.ok
            else (e.name, e.problem, "", "", "", "")
            for e in found.endpoints
        ],
    )
    facts: list[tuple[str, object]] = [
        ("chain", found.chain_id),
        ("agreement", _agreement(found)),
    ]
    if found.round:
        state = "" if found.round.initialized else ", not initialized yet"
        facts.append(("round", f"{found.round.number}{state}"))
    if found.usd_per_eth:
        facts.append(("ETH", f"{found.usd_per_eth} USD"))
    if found.wallet:
        facts.append(("wallet", found.wallet.address))
        facts.append(("", ether(found.wallet.balance_wei)))
        if found.wallet.lpt:
            facts.append(("", lpt_text(int(found.wallet.lpt))))
    show_facts(facts)
    if found.contracts:
        show_table(["contract", "address"], sorted(found.contracts.items()))
    for problem in found.problems:
        note(problem)


def _agreement(found: "ChainStatus") -> str:
    able = sum(each.ok for each in found.endpoints)
    if not found.agree:
        return "they contradict each other; remove the one that is wrong"
    if able < found.must_agree:
        return f"{able} of the {found.must_agree} that must agree can be reached: no money moves"
    return f"{able} of {len(found.endpoints)} agree, {found.must_agree} must"
