"""2,000 idle workers at one pool: its memory, and how soon all are back after a kill -9.

The baseline is the same pool without workers, in the same run.
"""

import asyncio
import json
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import psutil
import uvloop

from benchmarks.report import Row, report
from tests.network import write_config

WORKERS = 2_000


async def start_pool(config: Path, tokens: Path) -> tuple[Process, dict[str, str]]:
    """A pool process, and how workers reach it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks._idle_pool",
        str(config),
        str(tokens),
        str(WORKERS),
        stdin=PIPE,
        stdout=PIPE,
    )
    assert process.stdout is not None
    return process, json.loads(await process.stdout.readline())


async def connected(process: Process) -> int:
    """How many workers the pool serves."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    return int(await process.stdout.readline())


async def wait_connected(process: Process) -> float:
    """Seconds until all workers are registered."""
    began = time.monotonic()
    while await connected(process) < WORKERS:
        await asyncio.sleep(0.1)
    return time.monotonic() - began


def resident_mb(process: Process) -> float:
    """Resident memory of a process and of those it started for checking results."""
    return psutil.Process(process.pid).memory_info().rss / 1e6


async def run(folder: Path) -> list[Row]:
    """Start, fill, measure, kill, come back."""
    tokens = folder / "tokens"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = write_config(folder, ["127.0.0.1:9"], worker_port=port)
    process, _ = await start_pool(config, tokens)
    process.send_signal(signal.SIGKILL)  # enrolling 2,000 workers left memory of its own
    await process.wait()
    process, join = await start_pool(config, tokens)
    empty_mb = resident_mb(process)
    crowd = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks._idle_workers",
        join["host"],
        join["port"],
        join["pin"],
        str(tokens),
        stdout=PIPE,
    )
    try:
        await wait_connected(process)
        await asyncio.sleep(2)
        full_mb = resident_mb(process)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        process, _ = await start_pool(config, tokens)
        back_s = await wait_connected(process)
        return [
            Row(
                f"resident with {WORKERS:,} idle workers",
                f"{full_mb:.0f} MB",
                "<= 250 MB",
                f"{empty_mb:.0f} MB with none",
            ),
            Row(
                "memory of one idle worker",
                f"{(full_mb - empty_mb) * 1000 / WORKERS:.0f} kB",
            ),
            Row("all back after kill -9", f"{back_s:.1f} s", "<= 30 s"),
        ]
    finally:
        crowd.kill()
        process.kill()
        await crowd.wait()
        await process.wait()


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        report("Idle workers", uvloop.run(run(Path(folder))))


if __name__ == "__main__":
    main()
