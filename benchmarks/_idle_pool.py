"""A pool process for benchmarks.idle: CONFIG TOKENS_FILE COUNT. Enrols COUNT workers first."""

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from openpool.logs import configure
from tests.network import pool


async def main() -> None:
    """Serve until standard input closes; each line on it is answered with who is connected."""
    configure("warning")  # to standard error: standard output is for the answer
    tokens = Path(sys.argv[2])
    async with pool(Path(sys.argv[1])) as running:
        if not tokens.exists():
            names = [f"worker {number}" for number in range(int(sys.argv[3]))]
            secrets = [await running.enroll(name) for name in names]
            tokens.write_text("\n".join(secrets))
        address = running.running.worker_port
        join = {
            "host": address.host,
            "port": str(address.port),
            "pin": running.process.identity.fingerprint,
        }
        print(json.dumps(join), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            assert running.process.downstream is not None
            print(len(running.process.downstream.connections), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
