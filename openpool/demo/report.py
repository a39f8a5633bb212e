"""What the demo shows at its end: figures from the pool's own API, and the books proved.

Nothing here is computed from what the demo expects; a loss or a wrong balance is shown as it is.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from openpool.cli.api import Api
from openpool.demo.ai import Workload
from openpool.demo.children import output_of
from openpool.demo.gateway import Finished, Tally
from openpool.demo.told import Payouts, Statements, Told
from openpool.web.format import short_text
from openpool.web.shapes import Balances, EventView, Series, Status, Worker

PAGE = 500


class Segments(Struct, frozen=True, kw_only=True):
    sent: int
    returned: int
    lost: int
    hedged: int
    """Given to a second worker since the first was slow."""
    retried: int
    """Done again since a worker failed or was gone."""


class Wei(Struct, frozen=True, kw_only=True):
    fees: str
    commission: str
    credited: str


class WorkerFigures(Struct, frozen=True, kw_only=True):
    address: str
    segments: int
    rtf: float
    """Processing time over media time: below 1 is faster than the video plays."""
    credited_wei: str


class Summary(Struct, frozen=True, kw_only=True):
    """The line of JSON at the end."""

    segments: Segments
    renditions: int
    wei: Wei
    ledger_matches_log: bool
    workers: list[WorkerFigures]
    ai: dict[str, Workload] = {}
    payouts: Payouts | None = None
    """Null, as are the next two, where there is no local Ethereum."""
    luck: float | None = None
    statements: Statements | None = None

    @property
    def good(self) -> bool:
        """Nothing lost, and the books add up."""
        wei = self.wei
        adds_up = int(wei.fees) == int(wei.commission) + int(wei.credited) > 0
        whole = self.segments.lost == 0 and self.segments.returned == self.segments.sent
        served = all(each.ok == each.jobs for each in self.ai.values())
        return whole and adds_up and served and self.ledger_matches_log and self._paid

    @property
    def _paid(self) -> bool:
        """Whether everybody was paid once, and it is proved."""
        if self.payouts is None or self.luck is None or self.statements is None:
            return True
        return Told(payouts=self.payouts, luck=self.luck, statements=self.statements).good


async def gather(
    api: Api,
    tally: Tally,
    finished: Sequence[Finished],
    ledger_matches_log: bool,
    ai: dict[str, Workload],
    money: Told | None,
) -> Summary:
    """Ask the pool what happened."""
    status = await api.get(Status, "/status")
    workers = await api.get(list[Worker], "/workers")
    factors = await rtfs(api, workers)
    hedged, retried = _second_tries(await _delivered(api))
    return Summary(
        segments=Segments(
            sent=tally.sent,
            returned=tally.returned,
            lost=tally.lost,
            hedged=hedged,
            retried=retried,
        ),
        renditions=len(finished),
        wei=Wei(
            fees=status.fees_wei, commission=status.commission_wei, credited=status.credited_wei
        ),
        ledger_matches_log=ledger_matches_log,
        workers=[
            WorkerFigures(
                address=worker.address,
                segments=worker.segments,
                rtf=factors[worker.worker],
                credited_wei=worker.credited_wei,
            )
            for worker in workers
        ],
        ai=ai,
        payouts=money.payouts if money else None,
        luck=money.luck if money else None,
        statements=money.statements if money else None,
    )


async def rtfs(api: Api, workers: Sequence[Worker]) -> dict[str, float]:
    """By worker: the real-time factor of what it delivered, 0 if that is nothing."""
    found = {}
    for worker in workers:
        series = await api.get(Series, "/series", worker=worker.worker)
        media_ms = sum(point.media_ms for point in series.points)
        busy_ms = sum(point.busy_ms for point in series.points)
        found[worker.worker] = round(busy_ms / media_ms, 3) if media_ms else 0.0
    return found


async def replay_check(config: str) -> tuple[bool, str]:
    """Whether log and balances agree, as `openpool replay --check` sees it, and what it said."""
    code, output, errors = await output_of(["replay", "--check", "--config", config])
    return code == 0, (output + errors).strip()


async def _delivered(api: Api) -> list[EventView]:
    found: list[EventView] = []
    while True:
        after = found[-1].seq if found else 0
        page = await api.get(
            list[EventView], "/events", type="job-delivered", after=after, limit=PAGE
        )
        found += page
        if len(page) < PAGE:
            return found


class _Delivered(Struct, frozen=True):
    attempts: int
    hedged: bool


def _second_tries(events: Sequence[EventView]) -> tuple[int, int]:
    """How many jobs were hedged, and how many were tried again for another reason."""
    jobs = [msgspec.convert(event.data, _Delivered) for event in events]
    return sum(job.hedged for job in jobs), sum(job.attempts > 1 + job.hedged for job in jobs)


# --- for people --------------------------------------------------------------------------------


def show_renditions(console: Console, finished: Sequence[Finished]) -> None:
    """The finished renditions, one row for each stream and profile."""
    table = _table(
        "Finished renditions", "stream", "rendition", "size", "segments>", "frames>", "bytes>"
    )
    for manifest, profile in sorted({(f.manifest, f.profile) for f in finished}):
        rows = [f for f in finished if (f.manifest, f.profile) == (manifest, profile)]
        picture = rows[0].picture
        table.add_row(
            manifest,
            profile,
            f"{picture.width}x{picture.height}",
            str(len(rows)),
            f"{sum(row.picture.frames for row in rows):,}",
            f"{sum(row.bytes for row in rows):,}",
        )
    console.print(table)


def show_workers(console: Console, workers: Sequence[Worker], factors: Mapping[str, float]) -> None:
    """What each worker did and earned."""
    table = _table("Workers", "worker", "paid to", "now", "segments>", "rtf>", "credited wei>")
    for worker in workers:
        table.add_row(
            worker.name,
            short_text(worker.address),
            worker.status,
            str(worker.segments),
            f"{factors[worker.worker]:.3f}",
            f"{int(worker.credited_wei):,}",
        )
    console.print(table)
    console.print("  rtf: processing time over media time; below 1 is faster than it plays")


def show_books(console: Console, balances: Balances, workers: Sequence[Worker]) -> None:
    """All accounts; together they are zero."""
    names = {
        f"worker:{worker.address}": f"{worker.name} {short_text(worker.address)}"
        for worker in workers
    }
    table = _table("Books", "account", "wei>", "gwei>")
    for row in balances.balances:
        account = names.get(row.account, row.account)
        gwei = Decimal(row.amount_wei) / 10**9
        table.add_row(account, f"{int(row.amount_wei):,}", f"{gwei:,.2f}")
    table.add_section()
    table.add_row("together", balances.sum_wei, "")
    console.print(table)


def _table(title: str, *columns: str) -> Table:
    """A column whose name ends with `>` is aligned to the right."""
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name.rstrip(">"), justify="right" if name.endswith(">") else "left")
    return table
