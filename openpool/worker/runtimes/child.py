"""A process that holds one runtime: loads its model once, then serves the calls of the worker.

Everything happens in one thread, as libraries like it. Calls take turns piece by piece of their
answers, and only as far as the worker has room for them. If the worker dies, this dies with it.
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
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from openpool.core.errors import BadMessage
from openpool.wire.framing import Unpacker as MessageUnpacker
from openpool.worker.runtimes.base import (
    BadRequest,
    ModelMissing,
    Runtime,
    RuntimeRequest,
    Session,
)
from openpool.worker.runtimes.frames import (
    PIECE_BYTES,
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
    receive,
)

PR_SET_PDEATHSIG = 1
JSON_LINES = "application/jsonl"
WORDS_MAX = 500


def main(sock: socket.socket, setup: Setup) -> None:
    """Be the runtime until the worker hangs up."""
    _settle_in(setup.nice)
    try:
        runtime = build(setup)
        runtime.load()
    except ModelMissing as missing:
        sock.sendall(pack(Kind.MISSING, 0, str(missing).encode()))
        return
    except Exception as error:  # a broken model file, a library that does not fit
        why = f"it cannot be loaded: {_words(error)}"
        sock.sendall(pack(Kind.MISSING, 0, why.encode()))
        return
    sock.sendall(pack_number(Kind.READY, 0, runtime.vram_mb()))
    _Desk(sock, runtime).serve()


def build(setup: Setup) -> Runtime:
    """The runtime that is meant, not loaded yet."""
    module, _, name = setup.runtime.partition(":")
    kind = getattr(importlib.import_module(module), name)
    runtime: Runtime = kind(setup.model, setup.options, Path(setup.cache))
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


class _Desk:
    """All calls of this process."""

    def __init__(self, sock: socket.socket, runtime: Runtime) -> None:
        self._sock = sock
        self._runtime = runtime
        self._unpacker = Unpacker()
        self._talks: dict[int, _Talk] = {}

    def serve(self) -> None:
        """Give every call its turn, until the worker hangs up."""
        while self._listen():
            for talk in list(self._talks.values()):
                if talk.is_due:
                    self._turn(talk)
        for talk in self._talks.values():
            talk.close()

    def _listen(self) -> bool:
        """Take what the worker says; wait for it only if nothing else is to be done."""
        busy = any(talk.is_due for talk in self._talks.values())
        while select.select([self._sock], [], [], 0 if busy else None)[0]:
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
            begun = _Sitting(call, self._runtime) if call.session else _Single(call, self._runtime)
            begun.id = frame.call
            self._talks[frame.call] = begun
        elif talk := self._talks.get(frame.call):
            if frame.kind == Kind.CREDIT:
                talk.credit += number_of(frame)
            elif frame.kind == Kind.CANCEL:
                self._end(talk, pack(Kind.END, talk.id))
            else:
                self._input(talk, frame)

    def _input(self, talk: "_Talk", frame: Frame) -> None:
        try:
            talk.hear(frame)
        except (BadRequest, BadMessage) as fault:
            self._refuse(talk, str(fault))

    def _turn(self, talk: "_Talk") -> None:
        """One step of a call: its head, a piece of its answer, or its end."""
        try:
            reply = talk.step()
        except (BadRequest, BadMessage) as fault:
            self._refuse(talk, str(fault))
        except Exception as error:  # the runtime's bug costs this call
            self._end(talk, pack(Kind.BROKEN, talk.id, _words(error).encode()))
        else:
            if reply is None:
                self._end(talk, pack(Kind.END, talk.id))
            else:
                self._sock.sendall(reply)

    def _refuse(self, talk: "_Talk", why: str) -> None:
        """Say what is wrong with a request; in the middle of a session, as its last line."""
        if isinstance(talk, _Sitting) and talk.has_begun:
            line = msgspec.json.encode({"error": {"message": why, "type": "bad-request"}}) + b"\n"
            self._sock.sendall(pack(Kind.DATA, talk.id, line))
            self._end(talk, pack(Kind.END, talk.id))
        else:
            self._end(talk, pack(Kind.REFUSED, talk.id, why.encode()[:WORDS_MAX]))

    def _end(self, talk: "_Talk", last: bytes) -> None:
        del self._talks[talk.id]
        with suppress(Exception):  # a runtime that fails at letting go
            talk.close()
        self._sock.sendall(last)


class _Talk:
    """One call. `step` gives the next frame, or None at the end; it is called while due."""

    id = 0

    def __init__(self, call: Call, runtime: Runtime) -> None:
        self.call = call
        self.runtime = runtime
        self.credit = WINDOW_BYTES
        self.pieces: _Pieces | None = None

    @property
    def is_due(self) -> bool:
        """Whether there is something to do."""
        return self.credit > 0

    def hear(self, frame: Frame) -> None:
        """Take input."""

    def step(self) -> bytes | None:
        """Do a little."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of everything."""
        if self.pieces is not None:
            self.pieces.close()

    def data(self, piece: bytes) -> bytes:
        """The frame with a piece of the answer."""
        self.credit -= len(piece)
        return pack(Kind.DATA, self.id, piece)


class _Single(_Talk):
    """A request that is there as a whole, and its answer."""

    def step(self) -> bytes | None:
        if self.pieces is None:
            return self._answer()
        piece = self.pieces.next()
        return None if piece is None else self.data(piece)

    def _answer(self) -> bytes:
        call, body = self.call, self.call.body
        if call.body_file:
            body = Path(call.body_file).read_bytes()
        request = RuntimeRequest(path=call.path, content_type=call.content_type, body=body)
        del body
        answer = self.runtime.answer(request)
        length = None
        if isinstance(answer.body, bytes):
            length = len(answer.body)
            self.pieces = _Pieces(iter((answer.body,)))
        else:
            self.pieces = _Pieces(answer.body)
        head = Head(status=answer.status, content_type=answer.content_type, length=length)
        return pack(Kind.HEAD, self.id, encode(head))


class _Sitting(_Talk):
    """A session: messages in, lines out, for as long as the client likes."""

    def __init__(self, call: Call, runtime: Runtime) -> None:
        super().__init__(call, runtime)
        self._session: Session | None = None
        self._unpacker = MessageUnpacker()
        self._inbox: deque[bytes] = deque()
        self._used = 0
        """Bytes of input that were taken up since the last credit."""
        self._ended = False

    @property
    def has_begun(self) -> bool:
        """Whether the head was sent."""
        return self._session is not None

    @property
    def is_due(self) -> bool:
        work = self._inbox or self.pieces or self._used or self._ended or not self.has_begun
        return self.credit > 0 and bool(work)

    def hear(self, frame: Frame) -> None:
        if frame.kind == Kind.END:
            self._ended = True
            return
        self._used += len(frame.data)
        messages = self._unpacker.feed(frame.data)
        self._inbox += messages

    def step(self) -> bytes | None:
        if self._session is None:
            self._session = self.runtime.open(self.call.options)
            head = Head(status=200, content_type=JSON_LINES)
            return pack(Kind.HEAD, self.id, encode(head))
        if self.pieces is not None:
            piece = self.pieces.next()
            if piece is not None:
                return self.data(piece)
            self.pieces = None
        if self._inbox:
            self.pieces = _Pieces(self._session.feed(self._inbox.popleft()))
            return b""
        if self._used:
            used, self._used = self._used, 0
            return pack_number(Kind.CREDIT, self.id, used)
        return None if self._ended else b""

    def close(self) -> None:
        super().close()
        if self._session is not None:
            self._session.close()


class _Pieces:
    """The chunks of an answer, no piece large. Closing it, even unread, closes where they are from.

    (A generator that has not begun would not notice that it is closed.)
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def next(self) -> bytes | None:
        """The next piece; None at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return None
            if len(chunk) <= PIECE_BYTES:
                return chunk
            self._rest = memoryview(chunk)
        piece, self._rest = self._rest[:PIECE_BYTES], self._rest[PIECE_BYTES:]
        return bytes(piece)

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close:
            close()


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:WORDS_MAX]


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), msgspec.json.decode(sys.argv[2], type=Setup))
