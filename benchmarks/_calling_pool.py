"""A pool process with a customer: CONFIG. Prints how to join and how to ask, as JSON."""

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from openpool.logs import configure
from tests.network import pool


async def main() -> None:
    """Serve until standard input closes."""
    configure("warning")  # to standard error: standard output is for the answer
    async with pool(Path(sys.argv[1])) as running:
        address = running.running.worker_port
        made = await running.process.customers.add("bench", requests_per_minute=1_000_000)
        join = {
            "host": address.host,
            "port": address.port,
            "pin": running.process.identity.fingerprint,
            "token": await running.enroll("bench"),
            "web": running.running.web_url,
            "key": made.secret,
        }
        print(json.dumps(join), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
