"""A pool process that believes its workers: CONFIG. Prints how a worker joins, as JSON."""

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from benchmarks.latency import believe
from openpool.logs import configure
from openpool.pool.verify import Verifier
from tests.network import pool


async def main() -> None:
    """Serve until standard input closes."""
    configure("warning")  # to standard error: standard output is for the answer
    Verifier.check = believe  # type: ignore[method-assign,assignment]  # the point of this file
    Verifier.prepare = believe  # type: ignore[method-assign,assignment]
    async with pool(Path(sys.argv[1])) as running:
        address = running.running.worker_port
        join = {
            "host": address.host,
            "port": address.port,
            "pin": running.process.identity.fingerprint,
            "token": await running.enroll("bench"),
        }
        print(json.dumps(join), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
