"""Child processes that open strangers' files, so that a crash or a hang costs one file only.

One request is one file: a header that says what to do, then its bytes, over a socket pair. A child
that dies or takes too long is killed and replaced. The parent's side never blocks the event loop.
What the children do is in `pool.probe`, `pool.look` and `pool.weigh`; what it means in
`pool.verify` and `pool.answers`.
"""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence

import av.logging
import msgspec
from msgspec import Struct

from openpool.pool.look import Look, clipped, differs, look
from openpool.pool.probe import Probe, Unreadable, probe, recount
from openpool.pool.weigh import Weight, weigh

REPLY_BYTES_MAX = 64_000_000
MEMORY_BYTES_MAX = 4_000_000_000
ALARM_GRACE_S = 2.0
CHILD = (sys.executable, "-m", "openpool.pool.checkers")
_LENGTHS = struct.Struct("!IQ")


class Measure(Struct, frozen=True, tag=True):
    """Measure the file; answered by a Probe."""


class Recount(Struct, frozen=True, tag=True):
    """Count the file's frames by decoding it; answered by a Probe."""

    measured: Probe


class See(Struct, frozen=True, tag=True):
    """Look at a source, or the clip of it that is asked for; answered by a Look.

    A damaged source gets a Fault: what a worker's decoder makes of it cannot be foreseen.
    """

    clip_from_ms: int = 0
    clip_to_ms: int = 0


class Compare(Struct, frozen=True, tag=True):
    """Does the file show the same? Answered by a Fault, with an empty text if it does."""

    source: Look
    slack: float = 1.0


class Weigh(Struct, frozen=True, tag=True):
    """How large is this picture, or how long is this sound? Answered by a Weight."""


class Fault(Struct, frozen=True, tag=True):
    """Why the file cannot be opened, or what is wrong with it."""

    text: str


Request = Measure | Recount | See | Compare | Weigh
Answer = Probe | Look | Weight | Fault


class CheckerLost(Exception):
    """The child that had the file crashed."""


class CheckerHung(Exception):
    """The child that had the file took too long and was killed."""


class Checkers:
    """A fixed number of child processes; who asks waits for an idle one."""

    def __init__(self, processes: int, command: Sequence[str] = CHILD) -> None:
        self.lost = 0
        """Children that crashed or were killed so far."""
        self._size = processes
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
        children = [await self._spawn() for _ in range(self._size)]
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
                prefix = _LENGTHS.pack(len(header), len(data))
                await loop.sock_sendall(self._pipe, prefix + header)
                await loop.sock_sendall(self._pipe, data)
                size, _ = _LENGTHS.unpack(await self._receive(_LENGTHS.size))
                if size > REPLY_BYTES_MAX:
                    raise CheckerLost
                return _decode_answer(await self._receive(size))
        except TimeoutError:
            raise CheckerHung from None
        except (OSError, msgspec.MsgspecError):
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


# --- inside the child -----------------------------------------------------------------------------

_decode_request = msgspec.msgpack.Decoder(tuple[Request, float]).decode
_decode_answer: Callable[[bytes], Answer] = msgspec.msgpack.Decoder(Answer).decode


def answer(request: Request, data: bytes) -> Answer:
    """Do what is asked with one file."""
    try:
        match request:
            case Measure():
                return probe(data)
            case Recount(measured):
                return recount(data, measured)
            case See(clip_from_ms, clip_to_ms):
                return clipped(look(data, strict=True), clip_from_ms, clip_to_ms)
            case Compare(source, slack):
                return Fault(differs(source, look(data), slack))
            case Weigh():
                return weigh(data)
    except Unreadable as fault:
        return Fault(str(fault))


def serve(pipe: socket.socket) -> None:
    """Answer requests until the parent is gone."""
    while True:
        try:
            header_size, data_size = _LENGTHS.unpack(_read(pipe, _LENGTHS.size))
            request, limit_s = _decode_request(_read(pipe, header_size))
            data = _read(pipe, data_size)
        except EOFError:
            return
        # Ends this process even inside FFmpeg, and even if the parent is gone by then.
        signal.setitimer(signal.ITIMER_REAL, limit_s + ALARM_GRACE_S)
        reply = msgspec.msgpack.encode(answer(request, data))
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.sendall(_LENGTHS.pack(len(reply), 0) + reply)


def _read(pipe: socket.socket, size: int) -> bytes:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        count = pipe.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return bytes(buffer)


def main() -> None:
    """Run as a child: the socket to the parent is standard input."""
    import resource

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes us
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    av.logging.set_level(av.logging.PANIC)
    with socket.socket(fileno=sys.stdin.fileno()) as pipe:
        # a parent that dies by kill -9 may reset the pipe or close it: either way it is gone
        with contextlib.suppress(ConnectionError):
            serve(pipe)


if __name__ == "__main__":
    main()
