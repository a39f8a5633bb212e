"""Inside a child process: opens files with FFmpeg, counts tokens, answers what the pool asks.

The only place where the pool's side touches strangers' bytes with a decoder. It may crash or hang;
`pool.checkers` notices, kills and replaces it. Run as `python -m openpool.pool.checking`.
"""

import contextlib
import signal
import socket
import sys

import av.logging
import msgspec

from openpool.pool.checkers import LENGTHS
from openpool.pool.findings import (
    Answer,
    Compare,
    CountTokens,
    Fault,
    Measure,
    Recount,
    Request,
    See,
    Unreadable,
    Weigh,
)
from openpool.pool.look import clipped, differs, look
from openpool.pool.probe import probe, recount
from openpool.pool.tokens import count_tokens
from openpool.pool.weigh import weigh

MEMORY_BYTES_MAX = 4_000_000_000
ALARM_GRACE_S = 2.0

_decode_request = msgspec.msgpack.Decoder(tuple[Request, float]).decode


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
            case CountTokens(tokenizer, marks):
                return count_tokens(tokenizer, data, marks)
    except Unreadable as fault:
        return Fault(str(fault))


def serve(pipe: socket.socket) -> None:
    """Answer requests until the parent is gone."""
    while True:
        try:
            header_size, data_size = LENGTHS.unpack(_read(pipe, LENGTHS.size))
            request, limit_s = _decode_request(_read(pipe, header_size))
            data = _read(pipe, data_size)
        except EOFError:
            return
        # Ends this process even inside FFmpeg, and even if the parent is gone by then.
        signal.setitimer(signal.ITIMER_REAL, limit_s + ALARM_GRACE_S)
        reply = msgspec.msgpack.encode(answer(request, data))
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.sendall(LENGTHS.pack(len(reply), 0) + reply)


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
