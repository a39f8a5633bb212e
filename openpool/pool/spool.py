"""A request's body that can be sent more than once: to another worker if the first one fails.

What came is kept, in memory while it is small and in a temporary file from then on; more is read
from the client only when somebody wants it, so a slow worker slows the client down. The body of a
session, which may be endless, is passed through and not kept. Must not know HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from tempfile import SpooledTemporaryFile

from openpool.core.errors import BadMessage, Timeout, Unavailable

MEMORY_BYTES = 1 << 20
"""A larger body goes to a file."""
CHUNK_BYTES = 64 << 10


class TooLarge(BadMessage):
    """The request is larger than this pool takes."""

    code = "too-large"


class ClientTooSlow(Timeout):
    """The request's body came too slowly; send it again."""

    code = "too-slow"


class Spool:
    """One body. Close it when the call is over."""

    def __init__(
        self,
        source: AsyncIterator[bytes] | bytes,
        *,
        bytes_max: int,
        idle_s: float = 60.0,
        kept: bool = True,
    ) -> None:
        """`source` should survive that a wait for its next chunk is cancelled; a generator does
        not, and its body can then not be sent again. Without `kept` neither `bytes_max` nor
        `idle_s` counts."""
        self.size = 0
        self.ended = False
        """Whether all of it has come."""
        self._bytes_max = bytes_max
        self._idle_s = idle_s
        self._kept = kept
        self._lost = False
        self._file = SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 - closed by close
        self._pulling = asyncio.Lock()
        self._source: AsyncIterator[bytes] | None = None
        if isinstance(source, bytes):
            self._keep(source)
            self.ended = self._kept = True
        else:
            self._source = source

    async def more(self) -> bytes:
        """The client's next chunk; empty once all has come.

        Raises TooLarge, ClientTooSlow, and whatever the source raises.
        """
        async with self._pulling:
            if self.ended or self._source is None:
                return b""
            if self._lost:
                raise Unavailable("The worker failed, and the request is gone; send it again.")
            chunk = await self._pull(self._source)
            self.ended = not chunk
            self._keep(chunk)
            return chunk

    async def _pull(self, source: AsyncIterator[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._idle_s if self._kept else None):
                return await anext(source, b"")
        except TimeoutError:
            raise ClientTooSlow from None
        except asyncio.CancelledError:
            self._lost = isinstance(source, AsyncGenerator)
            raise

    def _keep(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if not self._kept:
            return
        if self.size > self._bytes_max:
            raise TooLarge(f"A request may have {self._bytes_max} bytes at most; send less.")
        self._file.seek(0, 2)
        self._file.write(chunk)

    async def read(self, bytes_max: int) -> bytes:
        """All of it. Raises TooLarge if that is more than `bytes_max`."""
        while not self.ended:
            await self.more()
            if self.size > bytes_max:
                raise TooLarge(f"This request may have {bytes_max} bytes at most; send less.")
        return self.so_far()

    def so_far(self) -> bytes:
        """What has come by now."""
        return self._at(0, self.size)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body from its beginning, as far as it has come and on as it comes."""
        if not self._kept:
            if self.size:
                raise Unavailable("The worker failed, and its session is gone; open a new one.")
            while chunk := await self.more():
                yield chunk
            return
        position = 0
        while True:
            if position < self.size:
                chunk = self._at(position, CHUNK_BYTES)
                position += len(chunk)
                yield chunk
            elif self.ended:
                return
            else:
                await self.more()

    def _at(self, position: int, size: int) -> bytes:
        self._file.seek(position)
        return self._file.read(size)

    def close(self) -> None:
        """Drop what was kept."""
        self._file.close()
