"""A pool that sells AI work the older way, for tests: stand-in, lines, prices, small answers."""

import math
import struct
import wave
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

from network import RunningPool, pool, write_config

from openpool.demo.ai_orchestrator import AiStandIn

PRICES = """
ai:
  grpc: true
  prices:
    - {pipeline: llm, price: 3 wei, per: 2}
    - {pipeline: speech-to-text, price: 7 wei}
    - {pipeline: text-to-speech, price: 11 wei}
    - {pipeline: image-to-text, price: 1 wei, per: 1000}
    - {pipeline: segmentation, price: 1 wei, per: 1000}
    - {pipeline: text-to-image, price: 1 wei, per: 10}
"""
SECRET = "o-secret"


@asynccontextmanager
async def ai_pool(
    folder: Path, identity: Path | None = None
) -> AsyncIterator[tuple[RunningPool, AiStandIn]]:
    """A pool and the orchestrator that it works for, whose certificate may be kept in a folder."""
    async with (
        AiStandIn(SECRET, identity=identity) as orchestrator,
        pool(write_config(folder, [orchestrator.address], PRICES)) as running,
    ):
        yield running, orchestrator


def png(width: int = 8, height: int = 8) -> bytes:
    """A small picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    rows = b"".join(
        b"\0" + bytes((x * 7 + y * 3) % 256 for x in range(width * 3)) for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def wav(seconds: float = 2.0) -> bytes:
    """A tone."""
    file = BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        samples = (int(9000 * math.sin(i / 9)) for i in range(int(seconds * 16_000)))
        sound.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return file.getvalue()
