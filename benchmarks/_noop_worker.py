"""A worker process that answers every task at once: HOST PORT PIN SECRET."""

import sys

import uvloop

from benchmarks.latency import no_op
from openpool.link.client import TranscoderClient
from openpool.link.tls import Trust
from tests.network import SmallWorker


async def main() -> None:
    """Work until terminated."""
    host, port, pin, secret = sys.argv[1:]
    trust = Trust.exact(pin) if pin else Trust.first_use()
    async with TranscoderClient(
        host, int(port), secret=secret, trust=trust, worker_version="bench"
    ) as client:
        await SmallWorker(client, no_op, capacity=100).run()


if __name__ == "__main__":
    uvloop.run(main())
