"""Child processes that open strangers' files, so that a crash or a hang costs one file only.

One request is one file: a header that says what to do, then its bytes, over a socket pair. A child
that dies or takes too long is killed and replaced. The parent's side never blocks the event loop.
What the children do is in `pool.probe`, `pool.look` and `pool.weigh`; what it means in
`pool.verify` and `pool.answers`.
"""

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence

import msgspec

from openpool.core.decoding import UNREADABLE
from openpool.pool.findings import Answer, Measure, Request

REPLY_BYTES_MAX = 64_000_000
CHILD = (sys.executable, "-m", "openpool.pool.checking")
LENGTHS = struct.Struct("!IQ")

_decode_answer: Callable[[bytes], Answer] = msgspec.msgpack.Decoder(Answer).decode


class CheckerLost(Exception):
    """The child that had the file crashed."""


class CheckerHung(Exception):
    """The child that had the file took too long and was killed."""


class Checkers:
    """A fixed number of child processes; who asks waits for an idle one."""

    def __init__(self, processes: int, command: Sequence[str] = CHILD) -> None:
        self.lost = 0
        """Children that crashed or were killed so far."""
        self.size = processes
        self._command = command
        # Last in, first out: the warmest child works, the others stay idle.
        self._idle: asyncio.LifoQueue[_Child | None] = asyncio.LifoQueue()
        self._children: set[_Child] = set()

    @property
    def pids(self) -> list[int]:
        """The process ids of the children that live."""
        return [child.process.pid for child in self._children]

    async def start(self) -> None:
        """Start all children and wait until they are ready."""
        children = [await self._spawn() for _ in range(self.size)]
        for child in children:
            await child.ready()
            self._idle.put_nowait(child)

    async def close(self) -> None:
        """Kill all children and wait until they are gone."""
        for child in list(self._children):
            await self._discard(child)

    async def ask(self, request: Request, data: bytes, limit_s: float) -> Answer:
        """Have a child answer. Raises CheckerLost or CheckerHung."""
        child = await self._idle.get()
        try:
            child = child or await self._spawn()
            answer = await child.exchange(request, data, limit_s)
        except BaseException as error:
            # Even a mere cancellation leaves a child in the middle of something.
            self._idle.put_nowait(None)
            if child:
                self.lost += isinstance(error, CheckerLost | CheckerHung)
                await self._discard(child)
            raise
        self._idle.put_nowait(child)
        return answer

    async def _spawn(self) -> "_Child":
        child = await _Child.spawn(self._command)
        self._children.add(child)
        return child

    async def _discard(self, child: "_Child") -> None:
        self._children.discard(child)
        await child.kill()


class _Child:
    """One child process as the parent sees it."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: socket.socket) -> None:
        self.process = process
        self._pipe = pipe

    @classmethod
    async def spawn(cls, command: Sequence[str]) -> "_Child":
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                env=_clean_environment(),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours)

    async def ready(self) -> None:
        """Wait until it answers."""
        with contextlib.suppress(CheckerLost):
            await self.exchange(Measure(), b"", 60.0)

    async def exchange(self, request: Request, data: bytes, limit_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        header = msgspec.msgpack.encode((request, limit_s))
        try:
            async with asyncio.timeout(limit_s):
                prefix = LENGTHS.pack(len(header), len(data))
                await loop.sock_sendall(self._pipe, prefix + header)
                await loop.sock_sendall(self._pipe, data)
                size, _ = LENGTHS.unpack(await self._receive(LENGTHS.size))
                if size > REPLY_BYTES_MAX:
                    raise CheckerLost
                return _decode_answer(await self._receive(size))
        except TimeoutError:
            raise CheckerHung from None
        except (OSError, *UNREADABLE):
            raise CheckerLost from None

    async def _receive(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        received = bytearray()
        while len(received) < size:
            chunk = await loop.sock_recv(self._pipe, min(size - len(received), 1 << 20))
            if not chunk:
                raise CheckerLost
            received += chunk
        return bytes(received)

    async def kill(self) -> None:
        self._pipe.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


def _clean_environment() -> dict[str, str]:
    """The pool's settings may hold secrets; a child that strangers attack needs none of them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENPOOL")}
