"""The part of the composition root that puts terms into force. Used by `openpool.app`.

When an announced version begins to apply, the core is told: how orchestrators' fees are paid, and
the commission of every worker, also of those whose connections stay open for weeks.
"""

import structlog

from openpool.core.facts import WorkerKnown
from openpool.pool.driver import Driver
from openpool.store.interface import Reader
from openpool.treasury.terms import PublishedTerms

log = structlog.get_logger()


def put_into_force(terms: PublishedTerms, driver: Driver, reader: Reader) -> None:
    """From here on jobs and calls are paid by the terms in force."""
    current = terms.in_force()
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
