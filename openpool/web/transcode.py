"""`POST /v1/transcode`: a customer's video segment in, its renditions out.

Reads the body within its limit and writes the answer; what the request asks for and what becomes
of it is behind `web.interface.Transcoder`.
"""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from openpool.core.call_requests import CallFailed
from openpool.core.transcodes import Made
from openpool.web.direct_errors import Wrong

PATH = "/v1/transcode"
PIPELINE = "transcode"
UPLOADS_MAX = 64
"""Requests at a time, because each one's body is held whole."""
TYPES: Mapping[str, str] = {"mpegts": "video/mp2t", "mp4": "video/mp4"}
ENDINGS: Mapping[str, str] = {"mpegts": "ts", "mp4": "mp4"}


class Uploads:
    """Counts the requests whose bodies are held."""

    def __init__(self, most: int = UPLOADS_MAX) -> None:
        self._most = most
        self._now = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Raises CallFailed if there are too many."""
        if self._now >= self._most:
            raise CallFailed(
                "insufficient-capacity", "Too many videos are being sent; try again shortly."
            )
        self._now += 1
        try:
            yield
        finally:
            self._now -= 1


async def read_body(chunks: AsyncIterator[bytes], bytes_max: int, idle_s: float) -> bytes:
    """A whole body. Raises Wrong if it is too large, or stops coming."""
    body = bytearray()
    while chunk := await _next(chunks, idle_s):
        body += chunk
        if len(body) > bytes_max:
            raise Wrong(413, f"A request may have {bytes_max} bytes at most; send less.")
    return bytes(body)


async def _next(chunks: AsyncIterator[bytes], idle_s: float) -> bytes:
    try:
        async with asyncio.timeout(idle_s):
            return await anext(chunks, b"")
    except TimeoutError:
        raise Wrong(408, "The request came too slowly; send it again.") from None


def as_json(made: Sequence[Made]) -> tuple[str, list[bytes]]:
    """Content type and body of the answer for those who want JSON."""
    shown = [{**_described(each), "data": base64.b64encode(each.data).decode()} for each in made]
    return "application/json", [msgspec.json.encode({"object": "list", "data": shown})]


def as_parts(made: Sequence[Made]) -> tuple[str, list[bytes]]:
    """Content type and body of the answer: one part per rendition, in the order asked for."""
    boundary = secrets.token_hex(16)
    chunks: list[bytes] = []
    for each in made:
        head = (
            f"--{boundary}\r\nContent-Type: {TYPES[each.container]}\r\n"
            f'Content-Disposition: attachment; name="{each.name}"; '
            f'filename="{each.name}.{ENDINGS[each.container]}"\r\n'
            f"Content-Length: {len(each.data)}\r\n"
            f"X-Width: {each.width}\r\nX-Height: {each.height}\r\n\r\n"
        )
        chunks += [head.encode(), each.data, b"\r\n"]
    chunks.append(f"--{boundary}--\r\n".encode())
    return f"multipart/mixed; boundary={boundary}", chunks


def _described(made: Made) -> dict[str, object]:
    return {
        "name": made.name,
        "content_type": TYPES[made.container],
        "width": made.width,
        "height": made.height,
        "bytes": len(made.data),
    }
