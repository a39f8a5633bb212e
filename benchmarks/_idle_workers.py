"""Many workers in one process that register and wait: HOST PORT PIN TOKENS_FILE.

Prints a line each time all of them are registered. They come back by themselves, as ours do.
"""

import asyncio
import random
import sys
from pathlib import Path

import uvloop

from openpool.core.errors import OpenPoolError
from openpool.link.client import TranscoderClient
from openpool.link.interface import Ended
from openpool.link.tls import Trust


class Crowd:
    """Counts who is registered."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.registered = 0

    def came(self) -> None:
        self.registered += 1
        if self.registered == self.size:
            print("all", flush=True)

    async def worker(self, host: str, port: int, pin: str, token: str) -> None:
        """One worker, for ever."""
        wait_s = 0.2
        trust = Trust.exact(pin)
        client = TranscoderClient(
            host, port, secret=token, trust=trust, worker_version="bench", connect_s=20
        )
        while True:
            try:
                async with client.register(
                    capacity=2, capabilities=None, version="0.9.1"
                ) as registration:
                    self.came()
                    wait_s = 0.2
                    try:
                        async for _ in registration:
                            pass
                    finally:
                        self.registered -= 1
            except (OpenPoolError, Ended):
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.5))
                wait_s = min(wait_s * 2, 5.0)


async def main() -> None:
    """Run until terminated."""
    host, port, pin, file = sys.argv[1:]
    tokens = Path(file).read_text().split()
    crowd = Crowd(len(tokens))
    async with asyncio.TaskGroup() as group:
        for token in tokens:
            group.create_task(crowd.worker(host, int(port), pin, token))
            await asyncio.sleep(0.001)


if __name__ == "__main__":
    uvloop.run(main())
