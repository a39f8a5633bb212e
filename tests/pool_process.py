"""A pool in a process of its own: CONFIG. Prints, as JSON, how the worker `box` joins.

At its first start it enrols that worker; the token is kept beside the configuration.
"""

import asyncio
import json
import signal
import sys
from pathlib import Path

from openpool.logs import configure
from tests.network import pool


async def main() -> None:
    """Serve until SIGTERM."""
    configure("warning")  # to standard error: standard output is for the answer
    config = Path(sys.argv[1])
    kept = config.with_suffix(".token")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with pool(config) as running:
        if not kept.exists():
            kept.write_text(await running.enroll("box"))
        address = running.running.worker_port
        join = {
            "host": address.host,
            "port": str(address.port),
            "pin": running.process.identity.fingerprint,
            "token": kept.read_text(),
            "web": running.running.web_url,
        }
        print(json.dumps(join), flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
