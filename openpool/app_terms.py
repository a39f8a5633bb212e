"""The part of the composition root that puts terms into force. Used by `openpool.app`.

When an announced version begins to apply, everybody is told who acts by it: how orchestrators' fees
are paid, the commission of every worker, also of those whose connections stay open for weeks; the
next payout run; and the next settlement. Rounds that are over are settled by the terms before.
"""

from dataclasses import replace

import msgspec
import structlog

from openpool.app_money import Money
from openpool.core.facts import WorkerKnown
from openpool.core.money.terms import Promise
from openpool.pool.driver import Driver
from openpool.rules.process import RuleProcess
from openpool.store.interface import Reader
from openpool.treasury.planner import Planner
from openpool.treasury.terms import PublishedTerms

log = structlog.get_logger()


async def put_into_force(
    terms: PublishedTerms, driver: Driver, reader: Reader, money: Money | None
) -> None:
    """From here on jobs and calls are paid by the terms in force."""
    current = terms.in_force()
    promise = current.terms.promise
    driver.pool.fees.scheme = promise.scheme
    if money is not None:
        await _divide_by(promise, money)
    for row in reader.workers():
        if row.enrolled_ms:
            driver.feed(
                WorkerKnown(
                    worker=row.worker,
                    address=row.address,
                    commission_ppm=terms.commission_ppm(row.group),
                )
            )
    log.info("terms-apply", version=current.terms.version, digest=current.digest)


async def _divide_by(promise: Promise, money: Money) -> None:
    rules = [RuleProcess(each.rule, dict(each.options)) for each in promise.rules]
    await money.settler.change(
        scheme=promise.scheme, window_rounds=promise.window_rounds, rules=rules
    )
    money.closing.lpt_share_ppm = promise.reward_share_ppm
    if money.payer is not None:
        _pay_by(promise, money.payer.planner)


def _pay_by(promise: Promise, planner: Planner) -> None:
    rules = msgspec.structs.replace(
        planner.options.rules,
        threshold_wei=int(promise.threshold_wei),
        minimum_wei=int(promise.minimum_wei),
        gas_paid_by_worker=promise.gas_paid_by == "worker",
        gas_share_max_ppm=promise.gas_share_max_ppm,
    )
    planner.options = replace(planner.options, rules=rules)
