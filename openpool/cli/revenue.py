"""`openpool revenue`: what orchestrators bring in, how lucky that was, and how it leaves the chain.

`show` and `record` ask the running pool; `withdraw` asks the chain, and signs only with a keystore
that is named.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli import delegator_deeds as deeds
from openpool.cli.asking import Asked, as_operator
from openpool.cli.groups import Group
from openpool.cli.options import ConfigFile, Json, Set, examples, load
from openpool.cli.output import (
    about_percent,
    clock,
    ether,
    lpt,
    note,
    print_json,
    show,
    show_facts,
    show_table,
)
from openpool.core.errors import SetupError

if TYPE_CHECKING:
    from openpool.config.settings import Config
    from openpool.core.money.revenue_views import LuckView, OrchestratorRevenue, RevenueView

TICKETS = 10
"""Tickets that are shown to a person."""
revenue = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    epilog=examples("openpool revenue show", "openpool revenue withdraw main > unsigned.json"),
)

Named = Annotated[str, typer.Argument(metavar="ORCHESTRATOR", help="Its name in the settings.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(revenue, name="revenue", help="What orchestrators bring in.")


@revenue.command("show", epilog=examples("openpool revenue show", "openpool revenue show --json"))
@as_operator
def show_revenue(
    asked: Asked,
    rounds: Annotated[
        int, typer.Option("--rounds", "-n", metavar="N", min=1, help="How many rounds.")
    ] = 10,
) -> None:
    """Show rounds, tickets, luck, what is pending, and whether books and chain agree."""
    from openpool.core.money.revenue_views import RevenueView

    found = asked.ask(lambda api: api.get(RevenueView, "/revenue/details"))
    asked.show(found, lambda view: _show_revenue(view, rounds))


@revenue.command(
    "record",
    epilog=examples(
        'openpool revenue record main "0.5 ETH" --reference 2026-11',
        "openpool revenue record main '20 USD' --reference invoice-7",
    ),
)
@as_operator
def record(
    asked: Asked,
    orchestrator: Named,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Like '0.5 ETH'.")],
    reference: Annotated[
        str, typer.Option("--reference", metavar="NAME", help="Your name for it; each counts once.")
    ],
) -> None:
    """Book what an orchestrator brought that is not followed on chain. You have it in hand."""
    from openpool.web.answers import Recorded

    path = f"/revenue/{orchestrator}/records"
    body: dict[str, str | int] = {"amount": amount, "reference": reference}
    made = asked.ask(lambda api: api.post(Recorded, path, body))
    if asked.as_json:
        print_json(made)
    elif made.new:
        show(f"{amount} of {orchestrator} is in the books as {reference}.")
    else:
        note(f"{reference} was recorded before; nothing was changed.")


@revenue.command(
    "withdraw",
    epilog=examples(
        "openpool revenue withdraw main > unsigned.json",
        "openpool revenue withdraw main 0.5 --to 0xHOTWALLET",
        "openpool revenue withdraw main --keystore staking.json --passphrase pass.txt",
    ),
)
def withdraw(
    orchestrator: Named,
    amount: Annotated[
        str, typer.Argument(metavar="AMOUNT", help="Like 0.5; all that can be if left out.")
    ] = "",
    to: Annotated[
        str, typer.Option("--to", metavar="ADDRESS", help="Who gets it; else the hot wallet.")
    ] = "",
    keystore: deeds.Keystore = None,
    passphrase: deeds.Passphrase = None,
    yes: deeds.Yes = False,
    anyway: deeds.Anyway = False,
    rpc: deeds.Rpc = "",
    config: ConfigFile = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Withdraw an orchestrator's fees to the hot wallet, with the staking key.

    Prints the unsigned transaction, or signs and sends it with --keystore. Refuses what would
    forfeit a reward or fees of this round, unless --anyway is given.
    """
    settings = load(config, assignments).config
    way = deeds.Way(
        sender=_address(settings, orchestrator),
        keystore=keystore,
        passphrase=passphrase,
        yes=yes,
        anyway=anyway,
        rpc=rpc,
        config=config,
        assignments=assignments,
        as_json=as_json,
    )
    deeds.do(way, "withdraw-fees", amount=amount, to=to or _hot_wallet(settings))


def _address(settings: "Config", orchestrator: str) -> str:
    for each in settings.orchestrators:
        if each.name == orchestrator and each.eth_address:
            return each.eth_address
    raise SetupError(
        f"The settings have no eth_address of an orchestrator {orchestrator}; set "
        "orchestrators[].eth_address."
    )


def _hot_wallet(settings: "Config") -> str:
    payouts = settings.payouts
    if payouts.signer_address:
        return payouts.signer_address
    if payouts.keystore != Path():
        from openpool.wallet import keystore_address

        return keystore_address(payouts.keystore)
    raise SetupError("The settings name no hot wallet; say who gets the fees with --to ADDRESS.")


# --- for people ----------------------------------------------------------------------------------


def _show_revenue(view: "RevenueView", rounds: int) -> None:
    _show_state(view)
    for each in view.orchestrators:
        _show_orchestrator(each, rounds)
    for alert in view.alerts:
        note(f"{alert.title} {alert.text}")


def _show_state(view: "RevenueView") -> None:
    by = "the chain" if view.source == "chain" else "the clock"
    followed = f", followed to block {view.block}" if view.block else ""
    show(f"Round {view.round} by {by}, since {clock(view.round_start_ms)}{followed}.")
    show_table(
        ["hot wallet", "ETH>", "LPT>", "open orders>"],
        [(w.wallet, ether(w.eth_wei), lpt(w.lpt), w.open_orders) for w in view.wallets],
        empty="",
    )


def _show_orchestrator(each: "OrchestratorRevenue", rounds: int) -> None:
    show_facts(
        [
            ("orchestrator", each.orchestrator),
            ("address", each.address or "not followed on chain"),
            ("luck", f"{_luck(each.luck)}. {each.luck.sentence}"),
            ("realised", ether(each.realised_wei)),
            ("realised minus accrued", ether(each.fees_wei)),
            (
                "pending on chain",
                f"{ether(each.pending_wei)}, in the books {ether(each.claim_wei)}",
            ),
            ("reward", each.reward.text if each.reward else "not watched"),
        ]
    )
    show_table(
        [
            "round>",
            "began",
            "expected>",
            "tickets>",
            "won>",
            "realised>",
            "luck>",
            "reward",
            "note~",
        ],
        [
            (
                row.round,
                clock(row.start_ms),
                ether(row.luck.expected_wei),
                row.luck.wins,
                ether(row.luck.won_wei),
                ether(row.realised_wei),
                _luck(row.luck),
                _reward(row.reward, row.reward_own_lpt),
                row.explanation or "still open",
            )
            for row in each.rounds[:rounds]
        ],
        empty="No round yet.",
    )
    show_table(
        ["transaction", "round>", "gateway", "face value>", "paid>"],
        [
            (t.tx, t.round, t.gateway, ether(t.face_value_wei), ether(t.paid_wei))
            for t in each.tickets[:TICKETS]
        ],
        empty="",
    )


def _luck(luck: "LuckView") -> str:
    if luck.ratio_ppm is None:
        return "—"
    spread = f" (usual: ±{about_percent(luck.spread_ppm)})" if luck.spread_ppm is not None else ""
    return f"{about_percent(luck.ratio_ppm)}{spread}"


def _reward(state: str, own_lpt: str) -> str:
    return f"{state}, {lpt(own_lpt)}" if state == "called" else state or "—"
