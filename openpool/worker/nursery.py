"""The worker's side of its transcoding processes: start them, talk to them, end them.

The rules of sessions are in `worker.sessions`; what runs in the processes is `worker.child`.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process

import psutil

from openpool.worker.child import ANSWER, COMMAND, KILL, SPAWN, STATUS, STILL_RUNNING
from openpool.worker.pipe import Request, read_reply, to_result, write_request
from openpool.worker.terms import EngineError, InputError, TranscodeResult

SPAWN_TRIES = 2
START_S = 20.0
STOP_S = 2.0
READ_BYTES = 4 << 20


class Child:
    """One process that transcodes. `fault` says why it was killed, if it was."""

    def __init__(
        self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = pid
        self.fault = ""
        self.peak_bytes = 0
        self._reader = reader
        self._writer = writer

    async def transcode(self, request: Request, source: bytes) -> TranscodeResult:
        """Have a segment transcoded. Raises InputError and EngineError as the engine does, and
        OSError, EOFError or ValueError if the process died or went mad."""
        await write_request(self._writer, request, source)
        reply, bodies = await read_reply(self._reader)
        if reply.error:
            raise InputError(reply.error) if reply.input_fault else EngineError(reply.error)
        return to_result(reply, bodies)

    @property
    def is_alive(self) -> bool:
        """False once the process has hung up."""
        return not (self._reader.at_eof() or self._writer.is_closing())

    def measure_memory(self) -> int:
        """Resident memory in bytes; 0 if it has ended."""
        try:
            resident = int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0
        self.peak_bytes = max(self.peak_bytes, resident)
        return resident

    def hang_up(self) -> None:
        """Close the socket, which ends it if it is idle."""
        self._writer.close()


class Nursery:
    """Forks transcoding processes from one that has everything loaded already."""

    def __init__(self, nice: int) -> None:
        self._nice = nice
        self._process: Process | None = None
        self._control: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._question = 0
        self._children: set[Child] = set()
        self._closed = False

    async def spawn(self) -> Child:
        """A new child; EngineError if this machine cannot start one."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                pid = await self._fork(theirs)
        except BaseException:
            ours.close()  # a child that was born after all finds nobody there, and ends
            raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=READ_BYTES)
        child = Child(pid, reader, writer)
        self._children.add(child)
        return child

    async def _fork(self, theirs: socket.socket) -> int:
        """Process id of a child that serves on `theirs`. A nursery that has died is replaced."""
        async with self._lock:
            for _ in range(SPAWN_TRIES):
                try:
                    control = await self._running()
                    command = COMMAND.pack(SPAWN, self._ask(), self._nice)
                    socket.send_fds(control, [command], [theirs.fileno()])
                    return await self._answer(control)
                except (OSError, EOFError):
                    await self._stop()
        raise EngineError("This worker cannot start a transcoding process.")

    def release(self, child: Child) -> None:
        """Let an idle child end by itself."""
        self._children.discard(child)
        child.hang_up()

    def kill(self, child: Child) -> None:
        """End a child at once, whatever it does."""
        self.release(child)
        if self._control:
            with contextlib.suppress(OSError):
                self._control.send(COMMAND.pack(KILL, 0, child.pid))

    async def epitaph(self, child: Child) -> str:
        """How a child that hung up has died, in a few words."""
        try:
            async with self._lock:
                if self._control is None:
                    return "it was stopped"
                self._control.send(COMMAND.pack(STATUS, self._ask(), child.pid))
                code = await self._answer(self._control)
        except (OSError, EOFError):
            return "its parent died too"
        if code == STILL_RUNNING:
            return "it hung up"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    async def close(self) -> None:
        """End all children, and the nursery itself."""
        self._closed = True
        for child in list(self._children):
            self.release(child)
        async with self._lock:
            await self._stop()

    async def _running(self) -> socket.socket:
        if self._control and self._process and self._process.returncode is None:
            return self._control
        if self._closed:
            raise EOFError
        await self._stop()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "openpool.worker.child", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=DEVNULL,
                start_new_session=True,  # Ctrl-C is for the worker, which drains first
            )
        return self._control

    def _ask(self) -> int:
        self._question = (self._question + 1) % (1 << 32)
        return self._question

    async def _answer(self, control: socket.socket) -> int:
        """The answer to the last question; those to questions given up are passed over."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(START_S):
            while data := await loop.sock_recv(control, ANSWER.size):
                question, answer = ANSWER.unpack(data)
                if question == self._question:
                    return int(answer)
        raise EOFError

    async def _stop(self) -> None:
        if self._control:
            self._control.close()
        if self._process and self._process.returncode is None:
            try:
                async with asyncio.timeout(STOP_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._control = self._process = None
