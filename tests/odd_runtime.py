"""Runtimes that misbehave on request, for tests of what holds them."""

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from openpool.worker.runtimes.base import (
    BadRequest,
    ModelMissing,
    Runtime,
    RuntimeAnswer,
    RuntimeRequest,
    Session,
)


class Odd(Runtime):
    """Does what the request's path says."""

    pipeline: ClassVar[str] = "test"
    paths: ClassVar[tuple[str, ...]] = (
        "/echo", "/size", "/pid", "/crash", "/hang", "/leak", "/bad", "/bug", "/count", "/drip",
        "/die", "/stuck", "/flood", "/litter", "/garbled",
    )  # fmt: skip
    streaming: ClassVar[bool] = True
    known_options: ClassVar[Mapping[str, str] | None] = {
        "missing": "fail to load", "slow": "load slowly", "vram": "what it says it takes",
    }  # fmt: skip

    def load(self) -> None:
        if "missing" in self.options:
            raise ModelMissing("The model odd is not on this machine.")
        time.sleep(float(self.options.get("slow", "0")))

    def vram_mb(self) -> int:
        return int(self.options.get("vram", "0"))

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        return getattr(self, request.path[1:])(request)

    def echo(self, request: RuntimeRequest) -> RuntimeAnswer:
        return RuntimeAnswer(content_type=request.content_type, body=request.body)

    def size(self, request: RuntimeRequest) -> RuntimeAnswer:
        return RuntimeAnswer(body=str(len(request.body)).encode())

    def pid(self, request: RuntimeRequest) -> RuntimeAnswer:
        return RuntimeAnswer(body=str(os.getpid()).encode())

    def crash(self, request: RuntimeRequest) -> RuntimeAnswer:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError

    def hang(self, request: RuntimeRequest) -> RuntimeAnswer:
        if request.body:
            Path(request.body.decode()).write_text("hanging")
        time.sleep(600)
        raise AssertionError

    def leak(self, request: RuntimeRequest) -> RuntimeAnswer:
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1 << 20)))

    def litter(self, request: RuntimeRequest) -> RuntimeAnswer:
        """Dies with a temporary file open, whose name it notes."""
        with tempfile.NamedTemporaryFile(delete=False) as file:
            Path(request.body.decode()).write_text(file.name)
            os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def bad(self, request: RuntimeRequest) -> RuntimeAnswer:
        raise BadRequest("the request is odd")

    def bug(self, request: RuntimeRequest) -> RuntimeAnswer:
        raise KeyError("a secret path")

    def garbled(self, request: RuntimeRequest) -> RuntimeAnswer:
        raise (BadRequest if request.body else KeyError)("\ud800 is half a letter")

    def count(self, request: RuntimeRequest) -> RuntimeAnswer:
        return _events(f"{i}\n".encode() for i in range(1000))

    def drip(self, request: RuntimeRequest) -> RuntimeAnswer:
        """Goes on for ever, a line at a time; notes in a file when it was stopped."""
        return _events(_Drip(Path(request.body.decode())))

    def die(self, request: RuntimeRequest) -> RuntimeAnswer:
        def lines() -> Iterator[bytes]:
            yield b"first\n"
            os.kill(os.getpid(), signal.SIGKILL)

        return _events(lines())

    def stuck(self, request: RuntimeRequest) -> RuntimeAnswer:
        def lines() -> Iterator[bytes]:
            yield b"first\n"
            if request.body:
                Path(request.body.decode()).write_text("stuck")
            time.sleep(600)

        return _events(lines())

    def flood(self, request: RuntimeRequest) -> RuntimeAnswer:
        """64 MB in 1024 pieces, and a file with a byte for each that was taken."""

        def pieces() -> Iterator[bytes]:
            for _ in range(1024):
                with Path(request.body.decode()).open("ab") as note:
                    note.write(b".")
                yield bytes(64 << 10)

        return _events(pieces())


class _Drip(Iterator[bytes]):
    def __init__(self, note: Path) -> None:
        self._note = note

    def __next__(self) -> bytes:
        time.sleep(0.01)
        return b"drop\n"

    def close(self) -> None:
        self._note.write_text("stopped")


def _events(chunks: Iterator[bytes]) -> RuntimeAnswer:
    return RuntimeAnswer(content_type="text/event-stream", body=chunks)


class Parallel(Odd):
    """Also serves several requests at once."""

    concurrent: ClassVar[bool] = True
    paths: ClassVar[tuple[str, ...]] = (*Odd.paths, "/meet", "/linger")

    def load(self) -> None:
        self._meeting = threading.Barrier(self.parallel)

    def meet(self, request: RuntimeRequest) -> RuntimeAnswer:
        """Answers once as many requests are here as may be."""
        self._meeting.wait(10)
        return RuntimeAnswer(body=str(os.getpid()).encode())

    def linger(self, request: RuntimeRequest) -> RuntimeAnswer:
        """Waits until the client leaves; notes in a file that it began and that it ended."""
        note, left = Path(request.body.decode()), threading.Event()
        request.hangup.then(left.set)
        note.write_text("lingering")
        left.wait()
        note.write_text("left")
        raise ConnectionError


class Talkative(Odd):
    """Also holds sessions: answers every message with it and how many there were."""

    session: ClassVar[bool] = True

    def open(self, options: Mapping[str, str]) -> Session:
        if options.get("say") == "no":
            raise BadRequest("not today")
        return _Talk(options.get("say", ""))


class _Talk(Session):
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = 0

    def feed(self, message: bytes) -> Iterator[bytes]:
        if message == b"bad":
            raise BadRequest("a bad message")
        while message == b"dawdle":
            yield b""
        if message.startswith(b"nap:"):
            Path(message[4:].decode()).touch()
            time.sleep(1.5)
        self._count += 1
        said = f"{self._prefix}{message.decode()}"
        yield json.dumps([said, self._count, os.getpid()]).encode() + b"\n"
