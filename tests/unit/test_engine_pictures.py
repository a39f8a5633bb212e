"""The transcoding engine: how many pictures, how large, and when they are shown."""

import io
import itertools
from fractions import Fraction

import av
import pytest
from reading import read
from renditions import drop_packets

from openpool.core.geometry import rendition_size
from openpool.core.model import Codec, Profile, Segment
from openpool.demo.media import make_segments
from openpool.worker.engine import EncodedRendition, EngineSettings, transcode

SETTINGS = EngineSettings(preset="ultrafast")
FIRST, SECOND, THIRD = make_segments(320, 180, 30, 1, 3, seed=5, b_frames=2)
PORTRAIT = make_segments(180, 320, 30, 1, 1, audio=False)[0]
NTSC = make_segments(320, 180, Fraction(30_000, 1001), 1, 2, audio=False)
MP4 = make_segments(320, 180, 30, 1, 1, container="mp4", b_frames=2)[0]


def profile(width: int = 256, height: int = 144, **changes: object) -> Profile:
    asked = {"name": "p", "width": width, "height": height, "bitrate_bps": 300_000, **changes}
    return Profile(**asked)  # type: ignore[arg-type]  # test values


def run(source: bytes, *profiles: Profile, **changes: int) -> tuple[EncodedRendition, ...]:
    segment = Segment(seq=1, duration_ms=1000, profiles=profiles, **changes)  # type: ignore[arg-type]
    return transcode(source, segment, SETTINGS).renditions


def run_one(source: bytes, **changes: object) -> EncodedRendition:
    return run(source, profile(**changes))[0]  # type: ignore[arg-type]


LADDER = (
    profile(640, 360),
    profile(256, 144, fps_num=60),
    profile(256, 144, fps_num=15, container="mp4"),
    profile(256, 144, fps_num=30_000, fps_den=1001),
    profile(256, 144, gop_ms=-1),
    profile(256, 144, container="mp4"),
)


@pytest.mark.parametrize("source", [FIRST, PORTRAIT, NTSC[0], MP4])
def test_counts_are_what_a_decoder_gets(source: bytes) -> None:
    """Frames, size and pixels of every rendition equal what decoding it gives, exactly."""
    for rendition in run(source, *LADDER):
        seen = read(rendition.data)
        assert rendition.frames == len(seen.pts) == len(seen.video_dts)
        assert set(seen.sizes) == {(rendition.width, rendition.height)}
        assert rendition.pixels == seen.pixels


def test_source_counts_are_what_was_decoded() -> None:
    """The result tells frames, pixels and duration of the source."""
    result = transcode(FIRST, Segment(seq=1, duration_ms=1000, profiles=(profile(),)), SETTINGS)
    assert result.source_frames == 30
    assert result.source_pixels == 30 * 320 * 180
    assert result.media_ms == 1000
    assert result.pixels == 30 * 256 * 144


@pytest.mark.parametrize(
    ("source", "box", "size"),
    [
        (FIRST, (1280, 720), (1280, 720)),
        (FIRST, (854, 480), (854, 480)),
        (FIRST, (100, 100), (146, 82)),
        (PORTRAIT, (640, 360), (360, 640)),
        (PORTRAIT, (854, 480), (480, 854)),
    ],
)
def test_the_long_side_decides(source: bytes, box: tuple[int, int], size: tuple[int, int]) -> None:
    """The box gives the long side, upright video stands upright, and tiny boxes grow."""
    rendition = run(source, profile(*box))[0]
    assert (rendition.width, rendition.height) == size
    assert read(rendition.data).sizes[0] == size
    assert size == rendition_size(profile(*box), *read(source).sizes[0])


@pytest.mark.parametrize("source", [FIRST, PORTRAIT, NTSC[0]])
def test_times_pass_through(source: bytes) -> None:
    """Without a frame rate every picture keeps its time to the tick."""
    assert read(run_one(source).data).pts == read(source).pts


@pytest.mark.parametrize(
    ("fps", "step"),
    [
        (Fraction(60), 1500),
        (Fraction(30), 3000),
        (Fraction(15), 6000),
        (Fraction(30_000, 1001), 3003),
    ],
)
def test_frame_rate_joins_over_segments(fps: Fraction, step: int) -> None:
    """Three segments played one after another have one even step, without gap or overlap."""
    changes = {"fps_num": fps.numerator, "fps_den": fps.denominator}
    times = [t for s in (FIRST, SECOND, THIRD) for t in read(run_one(s, **changes).data).pts]
    assert {b - a for a, b in itertools.pairwise(times)} == {step}
    assert len(times) == pytest.approx(3 * fps, abs=1)


def test_ntsc_source_joins_over_segments() -> None:
    """At 29.97 frames/s consecutive segments keep the exact step of 3003 ticks."""
    times = [t for source in NTSC for t in read(run_one(source).data).pts]
    assert {b - a for a, b in itertools.pairwise(times)} == {3003}


def test_decoding_times_rise() -> None:
    """Decoding times rise strictly and never lie behind the time of showing."""
    for rendition in run(FIRST, *LADDER):
        seen = read(rendition.data)
        assert all(a < b for a, b in itertools.pairwise(seen.video_dts))
        assert all(d <= p for d, p in zip(seen.video_dts, seen.pts, strict=True))


def test_every_segment_starts_with_a_key_frame() -> None:
    """Each rendition of each segment can be played alone: its first frame is a key frame."""
    for source in (FIRST, SECOND):
        assert all(read(rendition.data).keys[0] for rendition in run(source, *LADDER))


def keys_at(**changes: object) -> list[int]:
    keys = read(run_one(FIRST, **changes).data).keys
    return [index for index, key in enumerate(keys) if key]


def test_intra_makes_every_frame_a_key_frame() -> None:
    """A GOP of -1 gives key frames only."""
    assert keys_at(gop_ms=-1) == list(range(30))


def test_gop_without_frame_rate_is_kept_by_time() -> None:
    """A GOP of 250 ms at the source's timing forces a key frame in each quarter of a second."""
    assert keys_at(gop_ms=250) == [0, 8, 15, 23]


def test_gop_with_frame_rate_is_kept_by_count() -> None:
    """A GOP of 500 ms at 30 frames/s puts at most 15 frames between key frames."""
    assert keys_at(gop_ms=500, fps_num=30) == [0, 15]


def test_gop_counts_with_the_real_rate() -> None:
    """At 30000/1001 a GOP of half a second is 15 frames, not thousands."""
    assert keys_at(gop_ms=500, fps_num=30_000, fps_den=1001) == [0, 15]


def test_no_gop_leaves_one_key_frame() -> None:
    """Without a GOP a second of steady video has its first key frame only."""
    assert keys_at() == [0]


def test_uneven_timing_passes_through() -> None:
    """A source with missing frames keeps its uneven times, and a frame rate fills the holes."""
    uneven = drop_packets(FIRST_PLAIN, lambda rank: 10 <= rank < 20 and rank % 2 == 1)
    times = read(uneven).pts
    assert len(times) < 30
    assert read(run_one(uneven).data).pts == times
    filled = read(run_one(uneven, fps_num=30).data).pts
    assert {b - a for a, b in itertools.pairwise(filled)} == {3000}


FIRST_PLAIN = make_segments(320, 180, 30, 1, 1, seed=5)[0]


def test_resolution_change_in_mid_segment() -> None:
    """A source that turns upright keeps all frames, at the size that the first frame gave."""
    landscape = make_segments(320, 180, 30, Fraction(1, 2), 1, audio=False)[0]
    upright = make_segments(180, 320, 30, Fraction(1, 2), 1, audio=False, start_s=Fraction(21, 2))[
        0
    ]
    for rendition in run(landscape + upright, profile(), profile(fps_num=60)):
        seen = read(rendition.data)
        assert rendition.frames == len(seen.pts) in (30, 60)
        assert set(seen.sizes) == {(256, 144)}


def test_a_turned_picture_gets_bars_not_a_squeeze() -> None:
    """After the source turns upright the picture keeps its shape between black bars."""
    landscape = make_segments(320, 180, 30, Fraction(1, 2), 1, audio=False)[0]
    upright = make_segments(180, 320, 30, Fraction(1, 2), 1, audio=False, start_s=Fraction(21, 2))[
        0
    ]
    rendition = run_one(landscape + upright, bitrate_bps=2_000_000)
    with av.open(io.BytesIO(rendition.data)) as container:
        last = list(container.decode(video=0))[-1]
    plane = last.planes[0]
    row = bytes(plane)[plane.line_size * 72 :][: plane.width]
    assert max(row[:60]) < 40
    assert max(row[-60:]) < 40
    assert max(row[100:156]) > 60


def test_a_clip_starts_at_zero() -> None:
    """A clip keeps the frames between its ends, both included, and counts from zero."""
    source = read(FIRST)
    clip = run(FIRST, profile(h264_profile=1), clip_from_ms=200, clip_to_ms=600)[0]
    seen = read(clip.data)
    kept = [t for t in source.pts if 18_000 <= t - source.pts[0] <= 54_000]
    assert seen.pts == [t - kept[0] for t in kept]
    assert seen.keys[0]
    assert seen.audio
    assert 0 <= seen.audio[0][0] < 2000
    assert seen.audio[-1][0] <= seen.pts[-1]


def test_a_clip_with_frame_rate() -> None:
    """A clip at another rate starts at zero as well, with the frames of its length."""
    clip = run(FIRST, profile(fps_num=15, h264_profile=1), clip_from_ms=0, clip_to_ms=500)[0]
    assert read(clip.data).pts == [6000 * n for n in range(8)]


def test_hevc_output() -> None:
    """A rendition in HEVC is HEVC, with the right count."""
    rendition = run_one(FIRST, codec=Codec.H265)
    seen = read(rendition.data)
    assert seen.codec == "hevc"
    assert (len(seen.pts), seen.pixels) == (30, rendition.pixels)


def recoded(pixel_format: str, **settings: object) -> bytes:
    """The first segment in another sample format."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(FIRST)) as source, av.open(buffer, "w", "mpegts") as out:
        stream = out.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, pixel_format
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for frame in source.decode(video=0):
            frame.pict_type = 0
            out.mux(stream.encode(frame.reformat(format=pixel_format)))
        out.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["yuv444p", "yuv422p", "yuv420p10le", "yuv422p10le", "yuvj420p"])
def test_every_sample_format_becomes_plain(form: str) -> None:
    """Sources of 10 bit, 4:2:2, 4:4:4 or full range give renditions that any player shows."""
    rendition = run_one(recoded(form))
    with av.open(io.BytesIO(rendition.data)) as container:
        frames = list(container.decode(video=0))
    assert {frame.format.name for frame in frames} == {"yuv420p"}
    assert len(frames) == rendition.frames == 30


def test_full_range_becomes_limited() -> None:
    """White of a full-range source (255) is white of ordinary video (235), not brighter."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", "mpegts") as out:
        stream = out.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuvj420p"
        stream.codec_context.color_range = 2
        white = av.VideoFrame(320, 180, "yuvj420p")
        for plane, value in zip(white.planes, (255, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        for index in range(10):
            white.pts, white.time_base = index, Fraction(1, 30)
            out.mux(stream.encode(white))
        out.mux(stream.encode(None))
    with av.open(io.BytesIO(run_one(buffer.getvalue()).data)) as container:
        frame = next(container.decode(video=0))
    assert bytes(frame.planes[0])[0] in range(233, 238)


def test_the_shape_of_pixels_passes_through() -> None:
    """An anamorphic source gives anamorphic renditions, so that players stretch both alike."""
    wide = recoded("yuv420p", sample_aspect_ratio=Fraction(4, 3))
    assert read(run_one(wide).data).pixel_aspect == "4/3"


def test_pictures_look_like_the_source() -> None:
    """A rendition shows the source: at a good bit rate it is closer than 30 dB to it."""
    rendition = run_one(FIRST, width=320, height=180, quality=18, bitrate_bps=8_000_000)
    error = count = 0
    with av.open(io.BytesIO(FIRST)) as one, av.open(io.BytesIO(rendition.data)) as two:
        for a, b in list(zip(one.decode(video=0), two.decode(video=0), strict=True))[::10]:
            left, right = bytes(a.planes[0]), bytes(b.planes[0])
            error += sum((x - y) ** 2 for x, y in zip(left, right, strict=True))
            count += len(left)
    assert 255**2 * count > error * 10**3
