"""Pictures of strangers: bombs, lies and scraps cost one sentence and no memory."""

import contextlib
import io
import resource
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from openpool.demo import scenes
from openpool.wire.forms import to_data_url
from openpool.worker.runtimes.base import BadRequest, RuntimeRequest
from openpool.worker.runtimes.images import open_picture
from openpool.worker.runtimes.moderation import Moderation
from openpool.worker.runtimes.ocr import Ocr, margins

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


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_nonsense_beside_the_orientation_is_no_matter(format: str) -> None:
    """Some cameras write EXIF that nobody can write again: their photos are turned all the same."""
    entries = struct.pack("<HHII", 0x010F, 2, 1, 0) + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    odd = struct.pack("<HHII", 0xA005, 5, 1, 2**31) + struct.pack("<HHII", 0x9286, 11, 1, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 4) + entries + odd + bytes(4)
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(buffer, format, exif=b"Exif\0\0" + tiff)
    picture = open_picture(buffer.getvalue())
    assert picture.shape == (40, 20, 3)


def test_sixteen_bits_are_made_eight() -> None:
    """A grey ramp of 16 bits is a ramp, not white with a black edge."""
    ramp = np.linspace(0, 65535, 256 * 4).reshape(4, 256).astype(np.uint16)
    picture = open_picture(scenes.to_file(Image.fromarray(ramp)))
    assert np.array_equal(picture[:, :, 0], ramp >> 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode: str) -> None:
    """Black letters on nothing can be read, and what is hidden under nothing is not judged."""
    hidden = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    hidden.putpixel((1, 1), (0, 0, 0, 255))
    picture = open_picture(scenes.to_file(hidden.convert(mode)))
    assert picture[1, 1].max() < 40
    assert picture[3, 3].min() > 215


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((100, 800), (0, 0)),
        ((99, 800), (50, 0)),
        ((16_384, 2), (0, 2047)),
        ((2, 16_384), (2047, 0)),
        ((2, 2), (0, 0)),
    ],
)
def test_long_strips_get_margins(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """No picture is so long that scaling its shorter side up makes it huge."""
    height, width = size
    down, across = margins(height, width)
    assert (down, across) == wanted
    sides = sorted((height + 2 * down, width + 2 * across))
    assert sides[1] <= 8 * sides[0]


def test_a_strip_is_read_like_any_other_picture() -> None:
    """Its words and their places come out as without the margins; it costs no more memory."""
    runtime = Ocr("rapidocr", {}, Path())
    runtime.load()
    word = scenes.write("Hello").crop((0, 0, 180, 160))
    strip = Image.new("RGB", (180, 1600), "white")
    strip.paste(word, (0, 1000))
    request = RuntimeRequest(path="/ocr", content_type="image/png", body=scenes.to_file(strip))
    found = msgspec.json.decode(runtime.answer(request).body)
    assert found["text"] == "Hello"
    assert all(0 <= x <= 180 and 1000 < y < 1160 for x, y in found["lines"][0]["box"])
    thin = RuntimeRequest(path="/ocr", content_type="image/png", body=_grey(2, 3000))
    assert msgspec.json.decode(runtime.answer(thin).body)["lines"] == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 3_000_000  # KB


def _grey(width: int, height: int) -> bytes:
    return scenes.to_file(Image.new("RGB", (width, height), "grey"))


def test_many_pictures_are_opened_one_after_the_other() -> None:
    """A small request of many large pictures takes the memory of one."""
    moderation = Moderation("openpool", {}, Path())
    moderation.load()
    url = to_data_url("image/png", _grey(4000, 3000))
    parts = [{"type": "image_url", "image_url": {"url": url}}] * 6
    body = msgspec.json.encode({"input": parts})
    tracemalloc.start()
    try:
        moderation.answer(RuntimeRequest(path="/", content_type="application/json", body=body))
        assert tracemalloc.get_traced_memory()[1] < 2 * 36_000_000 + 20_000_000
    finally:
        tracemalloc.stop()
