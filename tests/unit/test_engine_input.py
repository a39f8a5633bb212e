"""The transcoding engine against bad input: the right words, the right blame, never a crash."""

import io
import random
from fractions import Fraction

import av
import pytest
from reading import read
from renditions import drop_packets

from openpool.core.model import Codec, Profile, Segment
from openpool.demo.media import make_segments
from openpool.worker.engine import (
    EngineError,
    EngineSettings,
    InputError,
    TranscodeResult,
    transcode,
)

SETTINGS = EngineSettings(preset="ultrafast")
FIRST = make_segments(160, 96, 30, 1, 1, seed=3)[0]
SMALL = Profile(name="p", width=160, height=96, bitrate_bps=200_000)


def run(
    source: bytes, *profiles: Profile, settings: EngineSettings = SETTINGS, **changes: int
) -> TranscodeResult:
    asked = Segment(seq=1, duration_ms=1000, profiles=profiles or (SMALL,), **changes)  # type: ignore[arg-type]
    return transcode(source, asked, settings)


def only_audio() -> bytes:
    buffer = io.BytesIO()
    with av.open(io.BytesIO(FIRST)) as source, av.open(buffer, "w", "mpegts") as out:
        copy = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    return buffer.getvalue()


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/hostname\n"
CONCAT = b"ffconcat version 1.0\nfile /etc/hostname\n"


@pytest.mark.parametrize(
    "source",
    [b"", b"\x00" * 4000, b"G" * 1880, PLAYLIST, CONCAT, FIRST[:100], only_audio()],
    ids=["empty", "zeros", "sync bytes", "playlist", "concat", "stub", "audio only"],
)
def test_what_is_no_video_is_refused(source: bytes) -> None:
    """Bytes that are no video, or that name other files, get the text that gateways know."""
    with pytest.raises(InputError, match=r"^TranscoderInvalidVideo$"):
        run(source)


def test_a_source_without_key_frame_is_refused() -> None:
    """Without a key frame nothing can be decoded, and the error says so."""
    headless = drop_packets(FIRST, lambda rank: rank == 0)
    with pytest.raises(InputError, match=r"^No keyframes in input$"):
        run(headless)


def test_too_many_outputs_are_refused() -> None:
    """Ten renditions are made, an eleventh is refused."""
    assert len(run(FIRST, *[SMALL] * 10).renditions) == 10
    with pytest.raises(InputError, match=r"^Too many outputs$"):
        run(FIRST, *[SMALL] * 11)


def test_no_output_is_refused() -> None:
    """A segment without profiles asks for nothing."""
    with pytest.raises(InputError, match=r"^Invalid argument$"):
        transcode(FIRST, Segment(seq=1, duration_ms=1000, profiles=()), SETTINGS)


def test_an_unencodable_size_is_refused() -> None:
    """A source so flat that its rendition would be too wide names the resolution."""
    flat = make_segments(4000, 16, 30, Fraction(1, 10), 1)[0]
    with pytest.raises(InputError, match=r"^TranscoderInvalidResolution$"):
        run(flat)


def test_runaway_frame_rates_are_stopped() -> None:
    """A rate that makes more than 25 frames of each source frame is refused."""
    with pytest.raises(InputError, match=r"^Encoded frames runaway$"):
        run(FIRST, Profile(name="p", width=160, height=96, bitrate_bps=200_000, fps_num=900))


def test_a_hole_in_time_cannot_fill_the_disk() -> None:
    """Two frames four minutes apart, at 60 frames/s, stop as runaway and do not fill memory."""
    far = make_segments(160, 96, 30, Fraction(1, 30), 1, audio=False, start_s=250)[0]
    near = make_segments(160, 96, 30, Fraction(1, 30), 1, audio=False)[0]
    with pytest.raises(InputError, match=r"^Encoded frames runaway$"):
        run(near + far, Profile(name="p", width=160, height=96, bitrate_bps=200_000, fps_num=60))


def test_five_minutes_are_the_limit() -> None:
    """A source that plays longer than 300 s is refused."""
    slow = make_segments(160, 96, Fraction(1, 20), 320, 1, audio=False, start_s=40)[0]
    with pytest.raises(InputError, match=r"^TranscoderInvalidVideo$"):
        run(slow)


def test_large_pictures_are_refused_before_they_are_decoded() -> None:
    """A picture larger than this machine takes costs nothing but a look at its header."""
    settings = EngineSettings(frame_pixels_max=100 * 100)
    with pytest.raises(InputError, match=r"^TranscoderInvalidResolution$"):
        run(FIRST, settings=settings)


def test_too_many_pixels_are_this_workers_limit() -> None:
    """More pixels than this worker decodes is no fault of the input: another may do it."""
    settings = EngineSettings(decoded_pixels_max=10 * 160 * 96)
    with pytest.raises(EngineError, match="more than 153600 pixels"):
        run(FIRST, settings=settings)


def test_an_unknown_codec_is_this_workers_limit() -> None:
    """VP9 output is not made here, and the sentence names it."""
    vp9 = Profile(name="p", width=160, height=96, bitrate_bps=200_000, codec=Codec.VP9)
    with pytest.raises(EngineError, match="cannot encode VP9"):
        run(FIRST, vp9)


def test_an_empty_clip_is_refused() -> None:
    """A clip that lies behind the end of the segment holds nothing."""
    with pytest.raises(InputError, match=r"^Invalid argument$"):
        run(FIRST, clip_from_ms=5000, clip_to_ms=6000)


def test_a_cut_off_source_gives_what_it_has() -> None:
    """A download that ended early is transcoded as far as it goes, with exact counts."""
    rendition = run(FIRST[: len(FIRST) * 6 // 10]).renditions[0]
    assert 5 < rendition.frames < 30
    assert rendition.pixels == read(rendition.data).pixels


def test_a_very_short_source() -> None:
    """A segment of one frame is too short for FFmpeg to recognise, but is transcoded."""
    single = make_segments(160, 96, 30, Fraction(1, 30), 1, audio=False)[0]
    rendition = run(single).renditions[0]
    assert rendition.frames == len(read(rendition.data).pts) == 1


def test_damaged_sound_costs_sound_only() -> None:
    """Audio packets that no container takes are left out; the pictures are all there."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(FIRST)) as source, av.open(buffer, "w", "mpegts") as out:
        copies = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for number, packet in enumerate(source.demux()):
            if not packet.size:
                continue
            if packet.stream.type == "audio" and number % 3 == 0:
                broken = av.Packet(b"\xff\xf1\x50\x80" + b"\x00" * (packet.size - 4))
                broken.pts, broken.dts = packet.pts, packet.dts
                broken.time_base = packet.time_base
                broken.stream = copies[packet.stream.index]
                out.mux(broken)
                continue
            packet.stream = copies[packet.stream.index]
            out.mux(packet)
    mp4 = Profile(name="m", width=160, height=96, bitrate_bps=200_000, container="mp4")
    for rendition in run(buffer.getvalue(), SMALL, mp4).renditions:
        assert rendition.frames == len(read(rendition.data).pts) == 30
        assert read(rendition.data).audio


def damaged(source: bytes, chance: random.Random) -> bytes:
    """One of the ways in which networks and strangers damage a file."""
    data = bytearray(source)
    kind = chance.randrange(5)
    if kind == 0:
        for _ in range(chance.randrange(1, 60)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        start = chance.randrange(len(data))
        data[start : start + 400] = chance.randbytes(400)
    elif kind == 2:
        del data[chance.randrange(len(data)) :]
    elif kind == 3:
        packets = [data[i : i + 188] for i in range(0, len(data), 188)]
        chance.shuffle(packets)
        data = bytearray().join(packets)
    else:
        start = chance.randrange(len(data))
        del data[start : start + chance.randrange(1, 2000)]
    return bytes(data)


def test_damaged_input_never_crashes() -> None:
    """A hundred damaged segments either transcode with exact counts or raise a clean error."""
    chance = random.Random(20)
    mp4 = make_segments(160, 96, 30, Fraction(1, 2), 1, container="mp4")[0]
    stream = make_segments(160, 96, 30, Fraction(1, 2), 1)[0]
    good = 0
    for number in range(100):
        source = damaged(mp4 if number % 4 == 0 else stream, chance)
        profile = Profile(
            name="p", width=160, height=96, bitrate_bps=200_000, fps_num=30 * (number % 3)
        )
        try:
            rendition = run(source, profile).renditions[0]
        except (InputError, EngineError):
            continue
        good += 1
        if number % 5 == 0:
            assert rendition.pixels == read(rendition.data).pixels
    assert good > 50
