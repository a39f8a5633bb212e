"""The calls of one runtime process: each does a little whenever it is its turn.

Who has a turn is decided in `worker.runtimes.child`, in the one thread that also holds the model.
A `Beside` alone works in a thread of its own, and only hands over what it has made there.
"""

import queue
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from openpool.wire.framing import Unpacker as MessageUnpacker
from openpool.worker.runtimes.base import Hangup, Runtime, RuntimeRequest, Session
from openpool.worker.runtimes.frames import (
    PIECE_BYTES,
    RECEIVE_BYTES,
    WINDOW_BYTES,
    Call,
    Frame,
    Head,
    Kind,
    encode,
    pack,
    pack_number,
)

JSON_LINES = "application/jsonl"
MADE_MAX = 16
"""Pieces that may wait for their turn."""
ROOM_CHECK_S = 0.1


class Turn:
    """One call. `step` gives the next frame, or None at the end; it is called while due."""

    def __init__(self, number: int, call: Call, runtime: Runtime) -> None:
        self.id = number
        self.call = call
        self.runtime = runtime
        self.credit = WINDOW_BYTES
        self.pieces: Pieces | None = None

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
        """The frame with a piece of the answer; an empty piece is a pause."""
        self.credit -= len(piece)
        return pack(Kind.DATA, self.id, piece) if piece else b""


class Single(Turn):
    """A request that is there as a whole, and its answer."""

    def step(self) -> bytes | None:
        if self.pieces is None:
            return self._answer()
        piece = self.pieces.next()
        return None if piece is None else self.data(piece)

    def _answer(self) -> bytes:
        head, self.pieces = _answered(self.call, self.runtime, Hangup())
        return pack(Kind.HEAD, self.id, encode(head))


def _answered(call: Call, runtime: Runtime, hangup: Hangup) -> tuple[Head, "Pieces"]:
    """The runtime's answer to a single request."""
    answer = runtime.answer(
        RuntimeRequest(
            path=call.path,
            content_type=call.content_type,
            body=Path(call.body_file).read_bytes() if call.body_file else call.body,
            hangup=hangup,
        )
    )
    chunks = iter((answer.body,)) if isinstance(answer.body, bytes) else answer.body
    length = len(answer.body) if isinstance(answer.body, bytes) else None
    head = Head(status=answer.status, content_type=answer.content_type, length=length)
    return head, Pieces(chunks)


class Bell:
    """Wakes the desk from another thread."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def fileno(self) -> int:
        """What `select` wants to know."""
        return self._inside.fileno()

    def ring(self) -> None:
        """Something is to be done."""
        with suppress(BlockingIOError):  # it rings already
            self._outside.send(b"!")

    def hear(self) -> None:
        """Be quiet again."""
        with suppress(BlockingIOError):
            self._inside.recv(RECEIVE_BYTES)


class Beside(Turn):
    """A request whose answer is made in a thread of its own and sent by the desk's."""

    def __init__(self, number: int, call: Call, runtime: Runtime, bell: Bell) -> None:
        super().__init__(number, call, runtime)
        self._bell = bell
        self._hangup = Hangup()
        self._left = threading.Event()
        self._made: queue.Queue[Head | bytes | Exception | None] = queue.Queue(MADE_MAX)
        self._hangup.then(self._left.set)
        threading.Thread(target=self._make, daemon=True).start()

    @property
    def is_due(self) -> bool:
        return self.credit > 0 and not self._made.empty()

    def step(self) -> bytes | None:
        made = self._made.get_nowait()
        if isinstance(made, Exception):
            raise made
        if isinstance(made, Head):
            return pack(Kind.HEAD, self.id, encode(made))
        return None if made is None else self.data(made)

    def close(self) -> None:
        self._hangup.happen()

    def _make(self) -> None:
        try:
            head, pieces = _answered(self.call, self.runtime, self._hangup)
            self._put(head)
            with closing(pieces):
                while not self._left.is_set() and (piece := pieces.next()) is not None:
                    self._put(piece)
            self._put(None)
        except Exception as error:
            self._put(error)

    def _put(self, made: Head | bytes | Exception | None) -> None:
        """Hand it to the desk, as soon as there is room; to nobody if the client has left."""
        while not self._left.is_set():
            with suppress(queue.Full):
                self._made.put(made, timeout=ROOM_CHECK_S)
                self._bell.ring()
                return


class Sitting(Turn):
    """A session: messages in, lines out, for as long as the client likes."""

    def __init__(self, number: int, call: Call, runtime: Runtime) -> None:
        super().__init__(number, call, runtime)
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
            self.pieces = Pieces(self._session.feed(self._inbox.popleft()))
            return b""
        if self._used:
            used, self._used = self._used, 0
            return pack_number(Kind.CREDIT, self.id, used)
        return None if self._ended else b""

    def close(self) -> None:
        super().close()
        if self._session is not None:
            self._session.close()


class Pieces:
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
