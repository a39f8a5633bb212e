"""The other processes of the demo: started with their own logs, stopped in order, never left over.

Every child is in a process group of its own, so that Ctrl-C reaches the demo alone and it can end
the others in turn.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from openpool.core.errors import SetupError

STOP_S = 30.0


def free_port() -> int:
    """A port that was free a moment ago, for what has to come back on the same one."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Child:
    """One `openpool` command in another process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def first_line(self, timeout_s: float = 30.0) -> bytes:
        """What it says first on standard output; SetupError if it ends or stays silent."""
        assert self._process.stdout is not None, "it was started without `talks`"
        line = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        if not line:
            raise SetupError(f"{self.name} did not start: {self.last_words()} (see {self.log})")
        return line

    def kill(self) -> None:
        """SIGKILL to it and to its own children: as if the machine had lost its power."""
        self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that takes too long."""
        self._signal(signal.SIGTERM)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._process.wait()
        finally:
            self.kill()
            await self._process.wait()

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        return await self._process.wait()

    def last_words(self) -> str:
        """The last line of its log: what a person should read first."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class Children:
    """All of them. `stop` ends them in reverse order of starting."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._all: list[Child] = []

    async def start(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        talks: bool = False,
    ) -> Child:
        """Run `openpool ARGUMENTS` with a log file; `talks` keeps standard output for us."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "openpool",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if talks else output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._all.append(child)
        return child

    def forget(self, child: Child) -> None:
        """It is about to be killed on purpose."""
        self._all.remove(child)

    def check(self, expected_dead: Child | None = None) -> None:
        """Raises SetupError if another child has ended."""
        for child in self._all:
            if not child.running and child is not expected_dead:
                raise SetupError(f"{child.name} stopped: {child.last_words()} (see {child.log})")

    async def stop(self) -> None:
        for child in reversed(self._all):
            if child.running:
                await child.stop()


async def output_of(arguments: Sequence[str], timeout_s: float = 120.0) -> tuple[int, str, str]:
    """Run `openpool ARGUMENTS` to its end: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "openpool",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(), errors.decode()
