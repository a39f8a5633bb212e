"""The small interface between the worker port and whoever runs it.

`link.server.WorkerPort` calls a `PortHandler`; the pool's downstream shell and the orchestrator
stand-in are two of them. The engine behind the port can be changed without touching either.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from openpool.link.line_client import Line
from openpool.wire.ai_messages import AiJob, RegisterAi
from openpool.wire.messages import Notification, RegisterRequest


class GrpcStatus(IntEnum):
    """Endings a registration stream may have. CANCELLED is missing on purpose: it kills workers."""

    OK = 0
    UNKNOWN = 2
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Ended(Exception):
    """A handler raises this to end a registration stream with a status and a message."""

    def __init__(self, status: GrpcStatus, message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is on the other end of a request."""

    peer: str
    """`ip:port`."""
    authority: str
    """The host and port by which the caller knows this server; workers can reach it there."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers, names in lower case."""


class RegistrationStream(Protocol):
    """The open stream to one registered transcoder."""

    def notify(self, notification: Notification) -> None:
        """Send without waiting. Raises `Unavailable` if the stream is gone or its queue is full."""

    async def wait_closed(self) -> str:
        """Wait until the peer is gone; returns why, in words."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer to an upload or a refused download."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Download:
    """A body to stream. `length` is sent as content-length where it is known."""

    body: AsyncIterator[bytes]
    length: int | None = None
    content_type: str = "application/octet-stream"


class PortHandler(Protocol):
    """What a worker port does with what arrives."""

    async def register(
        self, request: RegisterRequest, stream: RegistrationStream, caller: Caller
    ) -> None:
        """Serve one registered transcoder; returning ends its stream with OK, `Ended` otherwise.

        Cancelled when the port shuts down (the stream then ends as UNAVAILABLE). Any other
        exception ends the stream as INTERNAL without a trace.
        """

    async def line(self, line: Line, caller: Caller) -> None:
        """Serve a worker that wants to be called; returning closes its line after its last call.

        Must return when the line is gone (its offers end, or `wait_closed`). An `OpenPoolError` is
        told to the worker: Unauthorized and Banned keep it from dialling again. Cancelled when the
        port shuts down.
        """

    async def download(self, path: str, caller: Caller) -> Download | Reply:
        """Answer `GET path`."""

    async def upload(self, path: str, caller: Caller, body: AsyncIterator[bytes]) -> Reply:
        """Answer `POST path`. The body may be left unread: the port then refuses the rest of it."""


class AiStream(Protocol):
    """The open stream to one registered AI worker."""

    def notify_ai(self, job: AiJob) -> None:
        """Send without waiting. Raises `Unavailable` if the stream is gone or its queue is full."""

    async def wait_closed(self) -> str:
        """Wait until the peer is gone; returns why, in words."""


class AiHandler(Protocol):
    """What a worker port does with AI workers of the older kind, if it takes them."""

    async def register_ai(self, request: RegisterAi, stream: AiStream, caller: Caller) -> None:
        """Serve one registered AI worker; it ends as in `PortHandler.register`."""


OnNotification = Callable[[Notification], Awaitable[None] | None]
