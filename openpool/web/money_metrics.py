"""Gauges of revenue and payouts for Prometheus, from the same views that the API shows.

Floats in gwei and LPT: for graphs and alarms; the exact figures are the API's.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal

from prometheus_client.core import GaugeMetricFamily, Metric

from openpool.core.money.payout_views import PayoutsView
from openpool.core.money.revenue_views import OrchestratorRevenue, RevenueView
from openpool.core.units import ETHER, GWEI, PPM

Read = Callable[[OrchestratorRevenue], float | None]


def _gwei(wei: str) -> float:
    return float(Decimal(wei) / GWEI)


def _ratio(ppm: int | None) -> float | None:
    return None if ppm is None else ppm / PPM


def _difference(each: OrchestratorRevenue) -> float | None:
    return next((_gwei(row.difference_wei) for row in each.rounds if row.closed), None)


def _is_due(each: OrchestratorRevenue) -> float | None:
    reward = each.reward
    return None if reward is None else float(reward.active and not reward.called)


GAUGES: tuple[tuple[str, str, Read], ...] = (
    ("realised_gwei", "Revenue since it is followed.", lambda each: _gwei(each.realised_wei)),
    ("pending_fees_gwei", "Claim on chain.", lambda each: _gwei(each.pending_wei)),
    ("unrealised_gwei", "Accrued minus realised.", lambda each: -_gwei(each.fees_wei)),
    ("claim_difference_gwei", "Claim on chain minus claim in the books.", _difference),
    ("luck_ratio", "Won over expected.", lambda each: _ratio(each.luck.ratio_ppm)),
    ("luck_spread", "One standard deviation of that.", lambda each: _ratio(each.luck.spread_ppm)),
    (
        "own_stake_lpt",
        "Stake of the orchestrator itself.",
        lambda each: float(Decimal(each.own_stake_lpt) / ETHER),
    ),
    ("reward_due", "1 while the reward of the running round is not called.", _is_due),
)


def revenue_gauges(view: RevenueView) -> Iterator[Metric]:
    """The state of this moment."""
    yield _one("round", "The round that runs.", view.round)
    if view.source == "chain":
        yield _one("chain_block", "The block up to which the chain is followed.", view.block)
        yield _one("chain_stalled", "1 while the chain cannot be followed.", bool(view.problem))
    for name, text, read in GAUGES:
        family = GaugeMetricFamily(f"openpool_{name}", text, labels=["orchestrator"])
        for each in view.orchestrators:
            value = read(each)
            if value is not None:
                family.add_metric([each.orchestrator], value)
        yield family


def payout_gauges(view: PayoutsView) -> Iterator[Metric]:
    """What is owed, what the wallet holds, how orders stand."""
    yield _one("payouts_owed_gwei", "Owed to workers.", _gwei(view.owed_wei))
    yield _one(
        "payouts_in_flight_gwei", "In payouts that are not final.", _gwei(view.in_flight_wei)
    )
    yield _one("payouts_paid_gwei", "Sent to workers over all time.", _gwei(view.paid_wei))
    yield _one("wallet_free_gwei", "What the hot wallet may still send.", _gwei(view.funds_wei))
    yield _one(
        "wallet_missing_gwei", "What it lacks to pay all who are due.", _gwei(view.missing_wei)
    )
    yield _one("payouts_paused", "1 while the brake is on.", bool(view.paused))
    yield _one("payouts_stalled", "1 while something keeps them.", bool(view.problem or view.held))
    family = GaugeMetricFamily("openpool_orders", "Orders over all time.", labels=["state"])
    for state, count in view.counts.items():
        family.add_metric([state], count)
    yield family


def _one(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(f"openpool_{name}", text)
    family.add_metric([], value)
    return family
