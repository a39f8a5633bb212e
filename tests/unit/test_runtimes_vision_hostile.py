"""Pictures of strangers: bombs, lies and scraps cost one sentence and no memory."""

import contextlib
import io
import resource
import struct
import time
import zlib

import pytest
from PIL import Image

from openpool.demo import scenes
from openpool.worker.runtimes.base import BadRequest
from openpool.worker.runtimes.images import open_picture

GOOD = scenes.to_file(scenes.draw(64, 48))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))


def _png(width: int, height: int, data: bytes) -> bytes:
    """A PNG that claims a size, whatever its data are."""
    head = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "no PNG, JPEG or WebP"),
        (b"hello" * 100, "no PNG, JPEG or WebP"),
        (b"GIF89a" + bytes(100), "no PNG, JPEG or WebP"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "no PNG, JPEG or WebP"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "no PNG|damaged"),
        (GOOD[:200], "damaged or cut off"),
        (scenes.to_file(scenes.draw(640, 480), "JPEG")[:2000], "damaged or cut off"),
        (scenes.to_file(scenes.draw(640, 480), "WEBP")[:200], "no PNG|damaged or cut off"),
        (_png(100_000, 100, b""), "sides of 2 to 16384"),
        (_png(1, 1, bytes(4)), "sides of 2 to 16384"),
        (_png(16_000, 16_000, b""), "at most 40 megapixels"),
        (_png(2**31 - 1, 2**31 - 1, b""), "at most 40 megapixels"),
        (_png(64, 64, bytes(10)), "damaged or cut off"),
    ],
)
def test_a_bad_picture_is_one_sentence(data: bytes, sentence: str) -> None:
    """Whatever is wrong with a file, its sender reads what."""
    with pytest.raises(BadRequest, match=sentence):
        open_picture(data)


def test_a_bomb_costs_nothing() -> None:
    """A small file that would unpack to 700 MB is refused in a moment, before it is unpacked."""
    bomb = _png(16_000, 15_000, bytes(1_000_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with pytest.raises(BadRequest, match="at most 40 megapixels"):
        open_picture(bomb)
    assert time.process_time() - began < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB


def test_a_file_within_a_file_is_not_unpacked() -> None:
    """A compressed comment of a gigabyte inside a small picture is refused or ignored cheaply."""
    comment = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    bomb = GOOD[:33] + _chunk(b"zTXt", comment) + GOOD[33:]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(BadRequest):
        open_picture(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80_000  # KB


def test_photos_are_turned_upright() -> None:
    """A photo that a camera stored lying down comes out standing, with its colours."""
    lying = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    lying.save(buffer, "JPEG", exif=exif)
    picture = open_picture(buffer.getvalue())
    assert picture.shape == (40, 20, 3)
    assert picture[20, 10, 0] > 200


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
def test_every_kind_of_pixel_becomes_rgb(mode: str) -> None:
    """Grey, transparent and indexed pictures are opened like any other."""
    picture = Image.new(mode, (8, 6))
    assert open_picture(scenes.to_file(picture)).shape == (6, 8, 3)
