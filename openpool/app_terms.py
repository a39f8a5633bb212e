"""The part of the composition root that puts terms into force. Used by `openpool.app`.

When an announced version begins to apply, the core is told: how orchestrators' fees are paid, and
the commission of every worker, also of those whose connections stay open for weeks. Payouts go by
the new thresholds from the next run on. Rules and the length of the window are those of the start:
a round is not divided by two of them.
"""

from dataclasses import replace

import msgspec
import structlog

from openpool.core.facts import WorkerKnown
from openpool.core.terms import Promise
from openpool.pool.driver import Driver
from openpool.store.interface import Reader
from openpool.treasury.payer import Payer
from openpool.treasury.planner import Planner
from openpool.treasury.terms import PublishedTerms

log = structlog.get_logger()


def put_into_force(
    terms: PublishedTerms, driver: Driver, reader: Reader, payer: Payer | None
) -> None:
    """From here on jobs and calls are paid by the terms in force."""
    current = terms.in_force()
    if payer is not None:
        _pay_by(current.terms.promise, payer.planner)
    driver.pool.fees.scheme = current.terms.promise.scheme
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


def _pay_by(promise: Promise, planner: Planner) -> None:
    rules = msgspec.structs.replace(
        planner.options.rules,
        threshold_wei=int(promise.threshold_wei),
        minimum_wei=int(promise.minimum_wei),
        gas_paid_by_worker=promise.gas_paid_by == "worker",
        gas_share_max_ppm=promise.gas_share_max_ppm,
    )
    planner.options = replace(planner.options, rules=rules)
