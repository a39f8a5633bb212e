"""`openpool payouts`: who is paid, when, and why not yet; the brake.

For the operator, through the REST API of the running pool, which alone has the wallet's lock.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.asking import Asked, as_operator
from openpool.cli.groups import Group
from openpool.cli.options import Limit, examples
from openpool.cli.output import (
    clock,
    counted,
    ether,
    lpt,
    note,
    print_json,
    show,
    show_facts,
    show_table,
)

if TYPE_CHECKING:
    from openpool.core.money.payout_views import NextPayout, OrderView, PayoutsView

payouts = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    epilog=examples("openpool payouts status", "openpool payouts run --dry-run"),
)

Address = Annotated[str, typer.Option("--address", metavar="ADDRESS", help="Only to this address.")]
OrderName = Annotated[str, typer.Argument(metavar="ORDER", help="Like payout-17.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(payouts, name="payouts", help="Who is paid, when, and why not yet.")


@payouts.command(
    "status", epilog=examples("openpool payouts status", "openpool payouts status --json")
)
@as_operator
def status(asked: Asked) -> None:
    """Show what is owed, what the wallet holds, and what keeps payouts from going on."""
    from openpool.core.money.payout_views import PayoutsView

    found = asked.ask(lambda api: api.get(PayoutsView, "/payouts"))
    asked.show(found, _show_status)


@payouts.command("plan", epilog=examples("openpool payouts plan", "openpool payouts plan --json"))
@as_operator
def plan(asked: Asked) -> None:
    """Show whom a run would pay now, and why nobody else. Nothing is signed or sent."""
    _plan(asked)


@payouts.command("run", epilog=examples("openpool payouts run", "openpool payouts run --dry-run"))
@as_operator
def run(
    asked: Asked,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan only, like `plan`.")] = False,
) -> None:
    """Pay now instead of at the next time. Limits and thresholds count as ever."""
    if dry_run:
        _plan(asked)
    else:
        _change(asked, "/payouts/run", {}, "A run starts.")


@payouts.command(
    "list",
    epilog=examples(
        "openpool payouts list",
        "openpool payouts list --state mined",
        "openpool payouts list --address 0x… --json",
    ),
)
@as_operator
def list_orders(
    asked: Asked,
    state: Annotated[
        str,
        typer.Option(
            "--state", metavar="STATE", help="Like planned, sent, mined, confirmed or voided."
        ),
    ] = "",
    address: Address = "",
    limit: Limit = 50,
) -> None:
    """List orders: open ones, then those that ended last."""
    from openpool.core.money.payout_views import OrderView

    query: dict[str, str | int] = {"state": state, "address": address, "limit": limit}
    found = asked.ask(lambda api: api.get(list[OrderView], "/payouts/orders", **query))
    nothing = "There is no such order." if state or address else "No orders yet."
    asked.show(found, lambda orders: _show_orders(orders, nothing))


@payouts.command("show", epilog=examples("openpool payouts show payout-17"))
@as_operator
def show_order(
    asked: Asked,
    order: OrderName,
) -> None:
    """Show one order, with every transaction that was signed for it."""
    from openpool.core.money.payout_views import OrderView

    found = asked.ask(lambda api: api.get(OrderView, "/payouts/order", name=order))
    asked.show(found, _show_order)


@payouts.command("pause", epilog=examples("openpool payouts pause --reason 'Wallet is moved.'"))
@as_operator
def pause(
    asked: Asked,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Everybody who waits reads it.")
    ] = "",
) -> None:
    """Sign nothing new from now on; what is on its way is followed to its end."""
    body = {"reason": reason}
    _change(asked, "/payouts/pause", body, "Payouts are paused.")


@payouts.command("resume", epilog=examples("openpool payouts resume"))
@as_operator
def resume(asked: Asked) -> None:
    """Go on paying."""
    _change(asked, "/payouts/resume", {}, "Payouts go on.")


@payouts.command("unblock", epilog=examples("openpool payouts unblock 0x…"))
@as_operator
def unblock(
    asked: Asked,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="A payout address.")],
) -> None:
    """Send again to an address that could not be paid."""
    body = {"address": address}
    _change(asked, "/payouts/unblock", body, "It is paid again.")


@payouts.command(
    "choose",
    epilog=examples(
        "openpool payouts choose 0x… --threshold '0.02 ETH'",
        "openpool payouts choose 0x… --asset LPT --staked",
    ),
)
@as_operator
def choose(
    asked: Asked,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="A payout address.")],
    threshold: Annotated[
        str, typer.Option("--threshold", metavar="AMOUNT", help="Like '0.02 ETH'; or pool.")
    ] = "pool",
    asset: Annotated[str, typer.Option("--asset", metavar="ETH|LPT", help="ETH or LPT.")] = "ETH",
    staked: Annotated[
        bool | None, typer.Option("--staked/--liquid", help="How LPT is paid; else as before.")
    ] = None,
) -> None:
    """Say for an owner how an address is to be paid; owners do that on their own page."""
    from openpool.core.money.payout_views import Chosen

    body: dict[str, str | int] = {
        "address": address,
        "threshold": threshold,
        "asset": asset.upper(),
    }
    if staked is not None:
        body["staked"] = staked
    made = asked.ask(lambda api: api.post(Chosen, "/payouts/choice", body))
    if asked.as_json:
        print_json(made)
    else:
        how = f"{made.asset}{' as stake' if made.staked else ''}"
        show_facts([("paid in", how), ("from", ether(made.threshold_wei))])


def _plan(asked: Asked) -> None:
    from openpool.core.money.payout_views import NextPayout

    found = asked.ask(lambda api: api.post(list[NextPayout], "/payouts/plan", {}))
    asked.show(found, _show_plan)


def _change(
    asked: Asked,
    path: str,
    body: Mapping[str, str | int],
    sentence: str,
) -> None:
    from openpool.web.answers import Done

    done = asked.ask(lambda api: api.post(Done, path, body))
    if asked.as_json:
        print_json(done)
    else:
        typer.echo(sentence)
        if done.paused and not path.endswith("pause"):
            note(f"Payouts are paused: {done.paused}")


def _funds(funds_wei: int) -> str:
    if funds_wei < 0:
        return f"nothing; {ether(-funds_wei)} are missing from what stays in the wallet"
    return ether(funds_wei)


def _show_status(found: "PayoutsView") -> None:
    show_facts(
        [
            ("mode", found.mode),
            ("wallet", f"{found.wallet} on chain {found.chain_id}"),
            ("may be spent", _funds(int(found.funds_wei))),
            ("lasts", _lasts(found.runway_days)),
            ("owed", _owed(found)),
            ("on its way", ether(found.in_flight_wei)),
            ("last 24 hours", f"{ether(found.spent_today_wei)} of {ether(found.per_day_max_wei)}"),
            *_lpt_today(found),
            ("orders", ", ".join(f"{n} {s}" for s, n in found.counts.items() if n) or "none"),
        ]
    )
    for sentence in _remarks(found):
        note(sentence)


def _lasts(days: int | None) -> str:
    if days is None:
        return "not known yet"
    return counted(days, "day") if days else "less than a day"


def _lpt_today(found: "PayoutsView") -> list[tuple[str, str]]:
    """The line below the one for ETH, if this pool sends LPT."""
    if found.per_day_max_lpt == "0":
        return []
    sent, most = (_amount(each, "LPT") for each in (found.spent_today_lpt, found.per_day_max_lpt))
    return [("", f"{sent} of {most}")]


def _owed(found: "PayoutsView") -> str:
    more = f" and {lpt(found.owed_lpt)}" if int(found.owed_lpt) else ""
    return f"{ether(found.owed_wei)}{more}"


def _remarks(found: "PayoutsView") -> list[str]:
    said = [f"Payouts are paused: {found.paused}"] if found.paused else []
    said += [each for each in (found.held, found.problem) if each]
    if int(found.missing_wei):
        said.append(f"The wallet lacks {ether(found.missing_wei)} to pay all who are due.")
    return said + [f"{address}: {why}" for address, why in found.blocked.items()]


def _show_plan(found: "Sequence[NextPayout]") -> None:
    show_table(
        ["address", "owed>", "threshold>", "now", "why not~"],
        [
            (
                each.address,
                _amount(each.owed_wei, each.asset),
                _amount(each.threshold_wei, each.asset),
                "pay" if each.due else "wait",
                each.why,
            )
            for each in found
        ],
        empty="Nothing is owed to anybody.",
    )


def _show_orders(found: "Sequence[OrderView]", nothing: str) -> None:
    show_table(
        ["order", "what", "state", "amount>", "to", "since", "transaction"],
        [
            (
                each.order,
                each.kind,
                each.state,
                _amount(each.amount_wei, each.asset),
                each.to if len(each.lines) < 2 else f"{len(each.lines)} payees",
                clock(each.ended_ms or each.planned_ms),
                each.tx or "—",
            )
            for each in found
        ],
        empty=nothing,
    )


def _show_order(found: "OrderView") -> None:
    show_facts(
        [
            ("order", found.order),
            ("what", found.kind),
            ("state", found.state),
            ("amount", _amount(found.amount_wei, found.asset)),
            ("to", found.to),
            ("nonce", "—" if found.nonce is None else found.nonce),
            ("block", found.block or "—"),
            ("gas", ether(found.fee_wei)),
            ("planned", clock(found.planned_ms)),
            ("note", found.note or "—"),
            *([("given up", found.reason)] if found.reason else []),
            *(("transaction", tx) for tx in found.txs),
        ]
    )
    if len(found.lines) > 1:
        show("")
        show_table(
            ["address", "amount>", "sent>"],
            [
                (e.address, _amount(e.amount_wei, found.asset), _amount(e.send_wei, found.asset))
                for e in found.lines
            ],
        )


def _amount(wei: str, asset: str) -> str:
    return ether(wei) if asset == "ETH" else lpt(wei)
