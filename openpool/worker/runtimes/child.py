"""A process that holds one runtime: loads its model once, then serves the calls of the worker.

Everything happens in one thread, as libraries like it; only a runtime that is `concurrent` gets one
more for each request. Calls take turns (`worker.runtimes.turns`) piece by piece of their answers,
and only as far as the worker has room for them. If the worker dies, this dies with it.
The worker's side is `worker.runtimes.process`, which runs this as a module.
"""

import ctypes
import importlib
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from openpool.core.errors import BadMessage, SetupError
from openpool.worker.runtimes.base import BadRequest, ModelMissing, Runtime
from openpool.worker.runtimes.frames import (
    Call,
    Frame,
    Kind,
    Setup,
    Unpacker,
    number_of,
    pack,
    pack_number,
    receive,
)
from openpool.worker.runtimes.turns import Bell, Beside, Single, Sitting, Turn

PR_SET_PDEATHSIG = 1
WORDS_MAX = 500


def main(sock: socket.socket, setup: Setup) -> None:
    """Be the runtime until the worker hangs up."""
    _settle_in(setup.nice)
    try:
        runtime = build(setup)
        runtime.load()
    except (ModelMissing, SetupError) as missing:
        sock.sendall(pack(Kind.MISSING, 0, _plain(str(missing))))
        return
    except Exception as error:  # a broken model file, a library that does not fit
        sock.sendall(pack(Kind.MISSING, 0, b"it cannot be loaded: " + _words(error)))
        return
    sock.sendall(pack_number(Kind.READY, 0, runtime.vram_mb()))
    _Desk(sock, runtime).serve()


def build(setup: Setup) -> Runtime:
    """The runtime that is meant, not loaded yet."""
    module, _, name = setup.runtime.partition(":")
    kind = getattr(importlib.import_module(module), name)
    runtime: Runtime = kind(setup.model, setup.options, Path(setup.cache))
    runtime.parallel = setup.parallel
    if missing := runtime.missing():
        raise ModelMissing(missing)
    return runtime


def _settle_in(nice: int) -> None:
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent == 1:
            os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(nice)
    # Read by libraries when they are loaded: threads that spin while they wait for each other take
    # cores from the worker's video, and on a busy machine they mostly wait.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class _Desk:
    """All calls of this process."""

    def __init__(self, sock: socket.socket, runtime: Runtime) -> None:
        self._sock = sock
        self._runtime = runtime
        self._unpacker = Unpacker()
        self._turns: dict[int, Turn] = {}
        self._bell = Bell()

    def serve(self) -> None:
        """Give every call its turn, until the worker hangs up."""
        while self._listen():
            for turn in list(self._turns.values()):
                if turn.is_due:
                    self._step(turn)
        for turn in self._turns.values():
            turn.close()

    def _listen(self) -> bool:
        """Take what the worker says; wait for it only if nothing else is to be done."""
        busy = any(turn.is_due for turn in self._turns.values())
        ends: list[socket.socket | Bell] = [self._sock, self._bell]
        while ready := select.select(ends, [], [], 0 if busy else None)[0]:
            if self._bell in ready:
                self._bell.hear()
            if self._sock in ready:
                data = receive(self._sock)
                if not data:
                    return False
                for frame in self._unpacker.feed(data):
                    self._hear(frame)
            busy = True
        return True

    def _hear(self, frame: Frame) -> None:
        if frame.kind == Kind.CALL:
            call = msgspec.msgpack.decode(frame.data, type=Call)
            self._turns[frame.call] = self._begin(call, frame.call)
        elif turn := self._turns.get(frame.call):
            if frame.kind == Kind.CREDIT:
                turn.credit += number_of(frame)
            elif frame.kind == Kind.CANCEL:
                self._end(turn, pack(Kind.END, turn.id))
            else:
                self._input(turn, frame)

    def _begin(self, call: Call, number: int) -> Turn:
        if call.session:
            return Sitting(number, call, self._runtime)
        if self._runtime.concurrent:
            return Beside(number, call, self._runtime, self._bell)
        return Single(number, call, self._runtime)

    def _input(self, turn: Turn, frame: Frame) -> None:
        try:
            turn.hear(frame)
        except (BadRequest, BadMessage) as fault:
            self._refuse(turn, str(fault))

    def _step(self, turn: Turn) -> None:
        """One step of a call: its head, a piece of its answer, or its end."""
        try:
            reply = turn.step()
        except (BadRequest, BadMessage) as fault:
            self._refuse(turn, str(fault))
        except Exception as error:  # the runtime's bug costs this call
            self._end(turn, pack(Kind.BROKEN, turn.id, _words(error)))
        else:
            if reply is None:
                self._end(turn, pack(Kind.END, turn.id))
            else:
                self._sock.sendall(reply)

    def _refuse(self, turn: Turn, why: str) -> None:
        """Say what is wrong with a request; in the middle of a session, as its last line."""
        if isinstance(turn, Sitting) and turn.has_begun:
            error = {"message": _plain(why).decode(errors="ignore"), "type": "bad-request"}
            line = msgspec.json.encode({"error": error}) + b"\n"
            self._sock.sendall(pack(Kind.DATA, turn.id, line))
            self._end(turn, pack(Kind.END, turn.id))
        else:
            self._end(turn, pack(Kind.REFUSED, turn.id, _plain(why)))

    def _end(self, turn: Turn, last: bytes) -> None:
        del self._turns[turn.id]
        with suppress(Exception):  # a runtime that fails at letting go
            turn.close()
        self._sock.sendall(last)


def _words(error: Exception) -> bytes:
    return _plain(f"{type(error).__name__}: {error}")


def _plain(sentence: str) -> bytes:
    """A sentence as it is sent, whatever a library has put into it."""
    return sentence[:WORDS_MAX].encode(errors="replace")


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), msgspec.json.decode(sys.argv[2], type=Setup))
