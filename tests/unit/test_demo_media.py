"""The sources that demo and tests are fed with: real video, continuous and repeatable."""

import io
import itertools
from fractions import Fraction

import av
import pytest
from reading import read

from openpool.core.model import Container
from openpool.demo.media import make_segments


@pytest.mark.parametrize("container", ["mpegts", "mp4"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_segments_continue_each_other(container: Container, b_frames: int) -> None:
    """Pictures and sound of consecutive segments join to the tick."""
    segments = make_segments(160, 90, 30, 1, 3, container=container, b_frames=b_frames)
    read_all = [read(segment) for segment in segments]
    times = [time for seen in read_all for time in seen.pts]
    assert times[0] == 900_000
    assert {b - a for a, b in itertools.pairwise(times)} == {3000}
    sound = [time for seen in read_all for time, _ in seen.audio]
    assert {b - a for a, b in itertools.pairwise(sound)} == {1920}
    assert all(seen.keys[0] for seen in read_all)


def test_ntsc_segments_join() -> None:
    """At 29.97 frames/s the step over segment ends is 3003 ticks as well."""
    segments = make_segments(160, 90, Fraction(30_000, 1001), 1, 3, False)
    times = [time for segment in segments for time in read(segment).pts]
    assert {b - a for a, b in itertools.pairwise(times)} == {3003}


def test_size_and_sound_are_as_asked() -> None:
    """Portrait stands upright, and without audio there is none."""
    seen = read(make_segments(90, 160, 30, 1, 1, False)[0])
    assert set(seen.sizes) == {(90, 160)}
    assert seen.order == ["video"]
    assert len(seen.pts) == 30


def test_the_seed_decides_the_content() -> None:
    """The same arguments give the same bytes, another seed gives another video."""
    one, again, other = (make_segments(160, 90, 30, 1, 1, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def picture(segment: bytes) -> bytes:
    """The first picture, as grey values."""
    with av.open(io.BytesIO(segment)) as container:
        return bytes(next(container.decode(video=0)).planes[0])


def test_the_picture_moves() -> None:
    """Consecutive segments do not show the same, so a replayed one can be told."""
    first, second = (picture(s) for s in make_segments(160, 90, 30, 1, 2, False))
    moved = sum(abs(a - b) > 30 for a, b in zip(first, second, strict=True))
    assert moved > len(first) // 100
