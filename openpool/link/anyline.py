"""What the pool's exchange needs of a line: a worker that can be called, however it is reached.

`link.line.Line` is one; a stock AI worker, which is notified of jobs instead, looks like one.
"""

from collections.abc import Mapping
from typing import Protocol

from openpool.core.errors import OpenPoolError
from openpool.link.line_client import Answer, Hello
from openpool.link.line_stream import Body


class AnyCall(Protocol):
    """One call; see `link.line.Call`."""

    async def __aenter__(self) -> Answer: ...
    async def leave(self) -> None: ...
    def fail(self, error: Exception) -> None: ...


class AnyLine(Protocol):
    """A worker that can be called; see `link.line.Line`."""

    @property
    def open(self) -> bool: ...
    async def hello(self) -> Hello: ...
    def call(
        self, method: str, path: str, headers: Mapping[str, str], body: Body = b""
    ) -> AnyCall: ...
    async def wait_closed(self) -> str: ...
    def close(self, error: OpenPoolError | None = None) -> None: ...
