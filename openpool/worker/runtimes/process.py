"""The worker's side of one runtime process: start it, talk to it, end it.

Whatever goes wrong in it ends as one clear error for the calls that it had. When to start it and
what to give it is decided in `worker.runtimes.slot`; what runs in it is `worker.runtimes.child`.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil

from openpool.core.errors import Unavailable
from openpool.worker.runtimes.base import BadRequest, ModelMissing
from openpool.worker.runtimes.frames import (
    ENDINGS,
    PIECE_BYTES,
    RECEIVE_BYTES,
    WINDOW_BYTES,
    Call,
    Frame,
    Head,
    Kind,
    Setup,
    Unpacker,
    encode,
    number_of,
    pack,
    pack_number,
)

MEMORY_CHECK_S = 0.25
STOP_S = 2.0


class RuntimeFailed(Unavailable):
    """The runtime failed on this request; another worker may manage it."""

    code = "runtime-failed"


class Talk:
    """One call that a process serves."""

    def __init__(self, process: "RuntimeProcess", number: int) -> None:
        self.number = number
        self.done = asyncio.Event()
        """Set once the process is through with it."""
        self.stopping = asyncio.Event()
        """Set then, and already when nobody wants the rest any more."""
        self._process = process
        self._head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._pieces: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._fault: Exception | None = None
        self._credit = WINDOW_BYTES
        self._taken = 0

    async def head(self) -> Head:
        """How the answer begins. Raises BadRequest or RuntimeFailed."""
        return await asyncio.shield(self._head)

    async def next(self) -> bytes | None:
        """The next piece of the answer, or None at its end. Raises RuntimeFailed."""
        while not self._pieces:
            if self.done.is_set():
                if self._fault is not None:
                    raise self._fault
                return None
            await self._wait()
        piece = self._pieces.popleft()
        self._taken += len(piece)
        if self._taken >= WINDOW_BYTES // 4 and not self.done.is_set():
            self._process.send(pack_number(Kind.CREDIT, self.number, self._taken))
            self._taken = 0
        return piece

    async def feed(self, body: AsyncIterator[bytes]) -> None:
        """Send the input of a session, as fast as the process takes it."""
        async for chunk in body:
            for start in range(0, len(chunk), PIECE_BYTES):
                piece = chunk[start : start + PIECE_BYTES]
                while self._credit < len(piece) and not self.done.is_set():
                    await self._wait()
                if self.done.is_set():
                    return
                self._credit -= len(piece)
                self._process.send(pack(Kind.DATA, self.number, piece))
        self._process.send(pack(Kind.END, self.number))

    def cancel(self, fault: Exception | None = None) -> None:
        """Nobody wants the rest; or nobody is to have it, and whoever waits hears why."""
        if not self.stopping.is_set():
            self._fault = fault
            self.stopping.set()
            self._process.send(pack(Kind.CANCEL, self.number))

    def kill(self, why: str) -> None:
        """End it with all of its process, which does not listen."""
        self._process.kill(why)

    def hear(self, frame: Frame) -> None:
        """Something came from the process. ValueError if it makes no sense."""
        if frame.kind == Kind.DATA:
            self._pieces.append(frame.data)
        elif frame.kind == Kind.HEAD:
            if not self._head.done():
                self._head.set_result(msgspec.msgpack.decode(frame.data, type=Head))
        elif frame.kind == Kind.CREDIT:
            self._credit += number_of(frame)
        elif frame.kind == Kind.REFUSED:
            self.end(BadRequest(frame.data.decode(errors="replace")))
        elif frame.kind == Kind.BROKEN:
            self._process.note(frame.data.decode(errors="replace"))
            self.end(RuntimeFailed("The runtime failed on this request."))
        elif frame.kind == Kind.END:
            self.end(None)
        self._changed.set()

    def end(self, fault: Exception | None) -> None:
        """It is over; whoever waits hears why."""
        if self.done.is_set():
            return
        self._fault = self._fault or fault
        self.done.set()
        self.stopping.set()
        self._changed.set()
        if not self._head.done():
            self._head.set_exception(self._fault or RuntimeFailed("The runtime gave no answer."))
            self._head.exception()  # nobody may be waiting

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class RuntimeProcess:
    """A process whose model is loaded. `run` must be running while it is used."""

    def __init__(
        self,
        process: Process,
        sock: socket.socket,
        memory_mb_max: int,
        scratch: tempfile.TemporaryDirectory[str],
    ) -> None:
        """`scratch` is where its temporary files go, and goes with it."""
        self.vram_mb = 0
        self.fault = ""
        """Why we killed it, in words for the client whose call it was."""
        self.last_error = ""
        """What its runtime said when it last failed, for the worker's owner."""
        self.talks: dict[int, Talk] = {}
        self._process = process
        self._sock = sock
        self._memory_mb_max = memory_mb_max
        self._scratch = scratch
        self._unpacker = Unpacker()
        self._count = 0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def load(self, limit_s: float) -> None:
        """Wait until the model is loaded. Raises ModelMissing, and RuntimeFailed if it dies."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._sock)
        try:
            async with asyncio.timeout(limit_s):
                frame = await self._first_frame(self._reader)
        except TimeoutError:
            raise RuntimeFailed(f"it was not loaded within {limit_s:g} s") from None
        except ValueError:
            raise RuntimeFailed("it spoke nonsense while loading") from None
        if frame.kind == Kind.MISSING:
            raise ModelMissing(frame.data.decode(errors="replace"))
        if frame.kind != Kind.READY:
            raise RuntimeFailed("it spoke nonsense while loading")
        self.vram_mb = number_of(frame)

    async def _first_frame(self, reader: asyncio.StreamReader) -> Frame:
        while data := await reader.read(RECEIVE_BYTES):
            for frame in self._unpacker.feed(data):
                return frame
        raise RuntimeFailed(f"it died while loading ({await self._cause()})")

    async def run(self) -> str:
        """Hear what the process says until it ends; returns how it ended, in words."""
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._watch_memory())
            try:
                await self._hear()
            except ValueError:
                self.kill("The runtime spoke nonsense.")
            finally:
                watch.cancel()
        if self._writer is not None:
            self._writer.close()
        how = await self._cause()
        fault = self.fault or f"The runtime died on this request ({how})."
        for talk in list(self.talks.values()):
            talk.end(RuntimeFailed(fault))
        self.talks.clear()
        return self.fault or how

    async def _hear(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(RECEIVE_BYTES):
                for frame in self._unpacker.feed(data):
                    if talk := self.talks.get(frame.call):
                        talk.hear(frame)
                        if frame.kind in ENDINGS:
                            del self.talks[frame.call]

    def begin(self, call: Call) -> Talk:
        """Give it a call."""
        self._count += 1
        talk = self.talks[self._count] = Talk(self, self._count)
        self.send(pack(Kind.CALL, talk.number, encode(call)))
        return talk

    def send(self, frame: bytes) -> None:
        """Send without waiting: what may be sent is bounded by credit."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame)

    def note(self, error: str) -> None:
        """Remember what its runtime failed with."""
        self.last_error = error

    def kill(self, why: str = "") -> None:
        """End it at once, whatever it does."""
        self.fault = self.fault or why
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # it may have started others

    async def close(self) -> None:
        """Let it end by itself, or else kill it; at once if the wait is cancelled."""
        if self._writer is None:
            self._sock.close()
        else:
            self._writer.close()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._process.wait()
        finally:
            self.kill()
            await self._process.wait()
            self._scratch.cleanup()

    async def _watch_memory(self) -> None:
        """Kill it if it takes too much memory. A limit on addresses would break CUDA."""
        while True:
            await asyncio.sleep(MEMORY_CHECK_S)
            try:
                resident = psutil.Process(self.pid).memory_info().rss >> 20
            except psutil.Error:
                continue
            if resident > self._memory_mb_max:
                self.kill(f"The runtime took more than {self._memory_mb_max} MB of memory.")

    async def _cause(self) -> str:
        try:
            async with asyncio.timeout(STOP_S):
                code = await self._process.wait()
        except TimeoutError:
            self.kill()
            return "it hung up"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


async def start(setup: Setup, memory_mb_max: int, folder: Path) -> RuntimeProcess:
    """A process that has begun to load its model, with its temporary files in a folder below this
    one; RuntimeFailed if none can be started."""
    ours, theirs = socket.socketpair()
    scratch = tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True)
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "openpool.worker.runtimes.child"),
                *(str(theirs.fileno()), msgspec.json.encode(setup).decode()),
                pass_fds=[theirs.fileno()],
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,  # libraries print what they think of hostile input
                start_new_session=True,  # Ctrl-C is for the worker, which drains first
                # a process that is killed in the middle of its work leaves customers' files behind
                env=os.environ | {"TMPDIR": scratch.name},
            )
    except OSError as error:
        ours.close()
        scratch.cleanup()
        raise RuntimeFailed(f"this machine cannot start a process: {error}") from None
    except BaseException:
        ours.close()
        scratch.cleanup()
        raise
    ours.setblocking(False)
    return RuntimeProcess(process, ours, memory_mb_max, scratch)
