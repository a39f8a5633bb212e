"""A request's body while it arrives: small ones in memory, large ones in a file, never too large.

The file is in a private folder and goes when the call ends; the runtime's process reads it, so
that no body is in memory twice.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from openpool.core.errors import BadMessage, OpenPoolError

MEMORY_BYTES_MAX = 1 << 20
DIGITS_MAX = 18


class TooLarge(OpenPoolError):
    """The request is too large."""

    code = "too-large"


def too_large(limit: int) -> TooLarge:
    """The error about a request of more than `limit` bytes."""
    return TooLarge(f"The request is larger than {limit / 1_000_000:g} MB; send a smaller one.")


def check_announced(length: str, limit: int) -> None:
    """Raises TooLarge if the header Content-Length says so, BadMessage if it says nonsense."""
    if length and not (length.isascii() and length.isdigit()):
        raise BadMessage("the Content-Length is not a number")
    if len(length) > DIGITS_MAX or int(length or 0) > limit:
        raise too_large(limit)


class Spool:
    """One body. Use as `async with`; then either `data` or `file` has it."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self.data = b""
        self.file: Path | None = None
        self._folder = folder
        self._bytes_max = bytes_max

    async def __aenter__(self) -> "Spool":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    async def take(self, body: AsyncIterator[bytes], announced: str = "") -> None:
        """Take all of it. Raises TooLarge as soon as it is known to be so."""
        check_announced(announced, self._bytes_max)
        waiting, size = bytearray(), 0
        async for chunk in body:
            size += len(chunk)
            self._check(size)
            waiting += chunk
            if len(waiting) > MEMORY_BYTES_MAX:
                await self._write(bytes(waiting))
                waiting.clear()
        if self.file is None:
            self.data = bytes(waiting)
        elif waiting:
            await self._write(bytes(waiting))

    def _check(self, size: int) -> None:
        if size > self._bytes_max:
            raise too_large(self._bytes_max)

    async def _write(self, data: bytes) -> None:
        if self.file is None:
            self.file = self._folder / uuid4().hex
        await asyncio.to_thread(_append, self.file, data)


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
