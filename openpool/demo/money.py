"""Money in the demo: tickets that win on a local chain, payouts, a crash in between, proofs.

The pool is killed when the chain has its first payout and nobody has been told so: what was sent
stands on the chain, and not in the pool's log. It is started again and must find out by itself.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from msgspec import Struct
from rich.table import Table

from openpool.core.money.payout_views import PayoutsView
from openpool.core.money.revenue_views import PublicRevenue
from openpool.core.units import PPM
from openpool.demo.children import output_of
from openpool.demo.money_ground import Ground
from openpool.demo.stage import Stage, until
from openpool.demo.told import Payouts, Statements, Told
from openpool.web.shapes import Status, Worker

PAID_S = 60.0
STATED_S = 30.0
ROUNDS = 3


class _Row(Struct, frozen=True, kw_only=True):
    """A statement, as the API lists it."""

    round: int
    signer: str


async def show(
    stage: Stage,
    ground: Ground,
    restart: Callable[[], Awaitable[None]],
    work: Callable[[], Awaitable[None]],
) -> Told:
    """Two rounds. `restart` starts the pool again after it was killed; `work` has more segments
    transcoded for the second round."""
    await _round(stage, ground, 0)
    ground.door.on_sent = lambda: _kill(stage)
    await _fill_wallet(stage, ground)
    await stage.pool_child.wait()
    await restart()
    await _paid(stage, ground)
    stage.say("The pool found its payout on the chain, and paid everybody else")
    done_wei = int((await stage.api.get(Status, "/status")).fees_wei)
    await work()
    await _round(stage, ground, done_wei)
    await _fill_wallet(stage, ground)
    await _paid(stage, ground)
    await ground.close_round()
    return await _tell(stage, ground)


async def _round(stage: Stage, ground: Ground, before_wei: int) -> None:
    """Draw the tickets of the work done since, and end the round."""
    value_wei = int((await stage.api.get(Status, "/status")).fees_wei) - before_wei
    won, brought_wei = await ground.draw(value_wei)
    number = await ground.close_round()
    stage.say(
        f"Round {number}: work worth {value_wei:,} wei, {won} winning tickets brought "
        f"{brought_wei:,} wei; reward is called"
    )


async def _fill_wallet(stage: Stage, ground: Ground) -> None:
    """Fees go to the hot wallet, and the pool is told to pay."""
    amount_wei = await ground.withdraw()
    await stage.api.send("POST", "/payouts/run")
    stage.say(f"The orchestrator withdraws {amount_wei:,} wei to the hot wallet {ground.wallet}")


async def _kill(stage: Stage) -> None:
    """SIGKILL to the pool, before it hears that its transaction arrived."""
    stage.children.forget(stage.pool_child)
    stage.pool_child.kill()
    await stage.pool_child.wait()
    stage.say("[bold red]pool killed[/bold red] (SIGKILL) after a payout was sent, before it knew")


async def _paid(stage: Stage, ground: Ground) -> None:
    """Wait until nobody is owed anything; the chain goes on, so that blocks become final."""

    async def all_paid() -> bool:
        stage.check()
        await ground.evm.mine()
        view = await stage.api.get(PayoutsView, "/payouts")
        return view.owed_wei == "0" == view.in_flight_wei

    await until(all_paid, PAID_S, "everybody to be paid")


async def _tell(stage: Stage, ground: Ground) -> Told:
    stated = await _verify(stage, ground, await _statements(stage, ground))
    view = await stage.api.get(PayoutsView, "/payouts")
    workers = await stage.api.get(list[Worker], "/workers")
    _show_payouts(stage, view, workers)
    luck_ppm = (await stage.api.get(PublicRevenue, "/revenue")).orchestrators[0].luck.ratio_ppm
    stage.say(f"{stated.verified} of {stated.made} statements verified with openpool verify")
    return Told(
        payouts=Payouts(
            planned=sum(view.counts.values()),
            confirmed=view.counts["confirmed"],
            voided=view.counts["voided"],
            paid_wei=view.paid_wei,
            owed_wei=view.owed_wei,
            paid_twice=await _paid_twice(ground, view),
        ),
        luck=(luck_ppm or 0) / PPM,
        statements=stated,
    )


async def _paid_twice(ground: Ground, view: PayoutsView) -> int:
    """How many recipients hold more than was sent by the books; they all began with nothing."""
    sent: dict[str, int] = {}
    for order in view.orders:
        for line in order.lines if order.state == "confirmed" else ():
            sent[line.address] = sent.get(line.address, 0) + int(line.send_wei)
    held = {address: await ground.evm.balance(address) for address in sent}
    return sum(held[address] > amount_wei for address, amount_wei in sent.items())


async def _statements(stage: Stage, ground: Ground) -> list[_Row]:
    """Those of both rounds, and of the one in which the last payouts became final."""
    rows: list[_Row] = []

    async def all_made() -> bool:
        nonlocal rows
        stage.check()
        await ground.evm.mine()
        rows = await stage.api.get(list[_Row], "/statements")
        return len(rows) == ROUNDS

    await until(all_made, STATED_S, "the statements of all rounds")
    return sorted(rows, key=lambda row: row.round)


async def _verify(stage: Stage, ground: Ground, rows: Sequence[_Row]) -> Statements:
    """Fetch every statement with its receipts, and check it as anybody may."""
    folder = stage.folder / "statements"
    folder.mkdir(exist_ok=True)
    verified = 0
    for row in rows:
        number = row.round
        statement = folder / f"{number}.json"
        receipts = folder / f"{number}.receipts.jsonl"
        statement.write_bytes(await stage.api.download(f"/statements/{number}"))
        receipts.write_bytes(await stage.api.download("/receipts", round=number))
        verified += await _is_right(stage, ground, statement, receipts, row.signer)
    return Statements(made=len(rows), verified=verified)


async def _is_right(
    stage: Stage, ground: Ground, statement: Path, receipts: Path, signer: str
) -> bool:
    arguments = ["verify", str(statement), "--receipts", str(receipts), "--signer", signer]
    code, output, errors = await output_of([*arguments, "--rpc", ground.evm.url])
    if code:
        stage.say(f"[red]{statement.name}[/red]: {(output + errors).strip()}")
    return code == 0


def _show_payouts(stage: Stage, view: PayoutsView, workers: Sequence[Worker]) -> None:
    names = {worker.address: worker.name for worker in workers}
    table = Table(title="Payouts", title_justify="left")
    for name in ("worker", "state", "transaction"):
        table.add_column(name)
    table.add_column("wei", justify="right")
    for order in reversed(view.orders):
        for line in order.lines:
            name = names.get(line.address, line.address)
            table.add_row(name, order.state, f"{order.tx[:18]}…", f"{int(line.send_wei):,}")
    stage.console.print(table)
