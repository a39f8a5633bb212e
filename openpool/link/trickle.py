"""Trickle: publishing and subscribing to a numbered row of segments over plain HTTP.

Readers ask for a segment by number and receive it while it is being written; asking for the next
one waits until somebody writes it. Who knows a channel's URL may use it, so URLs are not logged.
See docs/protocol.md.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ssl import SSLContext

import aiohttp

from openpool.core.errors import BadMessage, Timeout, Unavailable

Ssl = SSLContext | aiohttp.Fingerprint | bool

NEXT = -1
"""The segment that will be written next."""
LATEST = -2
"""The segment that is being written, or was last."""
NO_SUCH_SEGMENT = 470
"""The channel is there, but it does not keep this segment (any more, or yet)."""
SEQ = "Lp-Trickle-Seq"
CHANNEL_LATEST = "Lp-Trickle-Latest"
CLOSED = "Lp-Trickle-Closed"


class ChannelClosed(Exception):
    """The channel is over."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One segment. Iterate over `body` before asking for the next one."""

    seq: int
    content_type: str
    body: AsyncIterator[bytes]


class Subscriber:
    """Reads a channel from segment `start` on, in order; skips what is not kept any more."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        *,
        ssl: Ssl = True,
        start: int = NEXT,
        silence_s: float = 60.0,
        piece_bytes_max: int = 64 << 20,
    ) -> None:
        """`silence_s` is how long a writer may be silent before Timeout is raised."""
        self.next = start
        self._http = http
        self._url = url.rstrip("/")
        self._ssl = ssl
        self._patience = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=silence_s)
        self._piece_bytes_max = piece_bytes_max

    @asynccontextmanager
    async def piece(self) -> AsyncIterator[Piece | None]:
        """The next segment, or None where the reader has to ask again.

        Raises ChannelClosed at the end, Timeout or Unavailable when the server cannot be read:
        asking again goes on where it stopped.
        """
        try:
            async with self._http.get(
                f"{self._url}/{self.next}",
                ssl=self._ssl,
                timeout=self._patience,
                allow_redirects=False,
            ) as response:
                yield self._open(response)
        except TimeoutError:
            raise Timeout("the trickle channel is silent") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"cannot read the trickle channel: {type(error).__name__}") from None

    def _open(self, response: aiohttp.ClientResponse) -> Piece | None:
        # a closed channel answers 200 with a text in place of a missing segment
        if response.status == 404 or CLOSED in response.headers:
            raise ChannelClosed
        if response.status == NO_SUCH_SEGMENT:
            self.next = _number(response, CHANNEL_LATEST, NEXT)
            return None
        if response.status != 200:
            raise Unavailable(f"the trickle channel answers {response.status}")
        seq = _number(response, SEQ, self.next)
        if seq < 0:
            raise Unavailable("the trickle server does not number its segments")
        self.next = seq + 1
        return Piece(seq, response.content_type, self._body(response))

    async def _body(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        received = 0
        async for chunk, _ in response.content.iter_chunks():
            received += len(chunk)
            if received > self._piece_bytes_max:
                raise BadMessage(f"a trickle segment is over {self._piece_bytes_max} bytes")
            yield chunk


class Publisher:
    """Writes a channel, one segment after the other."""

    def __init__(self, http: aiohttp.ClientSession, url: str, *, ssl: Ssl = True) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._ssl = ssl
        self._next = NEXT

    async def publish(
        self, body: bytes | AsyncIterator[bytes], content_type: str, *, timeout_s: float = 30.0
    ) -> int:
        """Write the next segment; returns its number. ChannelClosed, Timeout or Unavailable."""
        try:
            async with self._http.post(
                f"{self._url}/{self._next}",
                data=body,
                headers={"Content-Type": content_type},
                ssl=self._ssl,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
            ) as response:
                if response.status == 404 or CLOSED in response.headers:
                    raise ChannelClosed
                if response.status != 200:
                    raise Unavailable(f"the trickle channel answers {response.status}")
                seq = _number(response, SEQ, NEXT)
        except TimeoutError:
            raise Timeout("the trickle channel takes nothing") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"cannot write the trickle channel: {type(error).__name__}") from None
        self._next = seq + 1 if seq >= 0 else NEXT
        return seq

    async def close(self, timeout_s: float = 5.0) -> None:
        """End the channel for everybody. Unavailable if the server cannot be told."""
        try:
            async with self._http.delete(
                self._url, ssl=self._ssl, timeout=aiohttp.ClientTimeout(total=timeout_s)
            ):
                pass
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"cannot close the trickle channel: {type(error).__name__}") from None


def _number(response: aiohttp.ClientResponse, header: str, default: int) -> int:
    text = response.headers.get(header, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else default
