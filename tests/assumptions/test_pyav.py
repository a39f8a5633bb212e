"""Facts about PyAV and FFmpeg that the engine relies on; a new version must keep them."""

import io
from fractions import Fraction

import av
import pytest
from av.codec.hwaccel import HWAccel
from av.video.frame import PictureType

from openpool.demo.media import make_segments

SOURCE = make_segments(320, 180, 30, 1, 1, b_frames=2)[0]


def frames() -> list[av.VideoFrame]:
    with av.open(io.BytesIO(SOURCE)) as container:
        return list(container.decode(video=0))


def encoder(**options: str) -> av.VideoCodecContext:
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = 320, 180, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 90_000), Fraction(30)
    context.options = {"preset": "ultrafast", **options}
    return context


def encode(context: av.VideoCodecContext, keep_type: bool) -> list[bool]:
    """Which packets are key frames."""
    packets = []
    for frame in frames():
        if not keep_type:
            frame.pict_type = 0
        packets += context.encode(frame)
    return [packet.is_keyframe for packet in packets + context.encode(None)]


def test_decoded_frames_carry_their_type() -> None:
    """A decoded frame keeps the type it had, and x264 would copy that pattern."""
    assert {PictureType(frame.pict_type).name for frame in frames()} >= {"I", "P", "B"}


def test_a_forced_picture_type_makes_an_idr_frame() -> None:
    """Type I with `forced-idr` makes a key frame at that very picture."""
    context = encoder(**{"forced-idr": "1"})
    packets = []
    for index, frame in enumerate(frames()):
        frame.pict_type = 1 if index in (0, 7) else 0
        packets += context.encode(frame)
    packets += context.encode(None)
    keys = sorted(packet.pts for packet in packets if packet.is_keyframe)
    shown = sorted(packet.pts for packet in packets)
    assert keys == [shown[0], shown[7]]


def test_flush_packets_say_the_wrong_stream() -> None:
    """The empty packets at the end of `demux` are not to be told apart by `stream_index`."""
    with av.open(io.BytesIO(SOURCE)) as container:
        empty = [packet for packet in container.demux() if not packet.size]
    assert len({packet.stream.index for packet in empty}) == 2
    assert {packet.stream_index for packet in empty} == {0}


def test_muxing_changes_the_packet() -> None:
    """`mux` rescales a packet in place, so a copy for two files must be put back."""
    with av.open(io.BytesIO(SOURCE)) as container, av.open(io.BytesIO(), "w", "mp4") as out:
        copy = out.add_stream_from_template(container.streams.audio[0])
        packet = next(container.demux(audio=0))
        before = packet.pts, packet.time_base
        packet.stream = copy
        out.mux(packet)
        assert (packet.pts, packet.time_base) != before


def test_x264_cannot_be_used_again_after_its_end() -> None:
    """A drained x264 encoder refuses more frames even when flushed: it is opened per segment."""
    context = encoder()
    encode(context, keep_type=False)
    context.flush_buffers()
    with pytest.raises((av.error.FFmpegError, ValueError)):
        encode(context, keep_type=False)


def test_a_decoder_can_be_used_again_after_its_end() -> None:
    """A drained and flushed decoder decodes the next segment to the last frame."""
    context = av.CodecContext.create("h264", "r")
    for _ in range(3):
        with av.open(io.BytesIO(SOURCE)) as container:
            got = [f for p in container.demux(video=0) if p.size for f in context.decode(p)]
        assert len(got + context.decode(None)) == 30
        context.flush_buffers()


def test_the_default_would_slice_pictures() -> None:
    """PyAV opens codecs with slice threads; the engine asks for frame threads instead."""
    assert encoder().thread_type.name == "SLICE"


def test_mpegts_keeps_times() -> None:
    """The MPEG-TS muxer adds no delay: what goes in at a tick comes out at that tick."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(SOURCE)) as container, av.open(buffer, "w", "mpegts") as out:
        copies = {s.index: out.add_stream_from_template(s) for s in container.streams}
        times = []
        for packet in container.demux():
            if packet.size:
                times.append((packet.stream.type, packet.pts, packet.dts))
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    with av.open(io.BytesIO(buffer.getvalue())) as container:
        got = [(p.stream.type, p.pts, p.dts) for p in container.demux() if p.size]
    assert sorted(got) == sorted(times)


def test_faststart_reads_the_output_back() -> None:
    """MP4 with its index in front asks `io_open` for its own output, under no name."""
    asked = []
    buffer = io.BytesIO()

    def reopen(url: str, flags: int, options: dict[str, str]) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(buffer.getvalue())

    options = {"movflags": "faststart"}
    with (
        av.open(io.BytesIO(SOURCE)) as container,
        av.open(buffer, "w", "mp4", container_options=options, io_open=reopen) as out,
    ):
        copy = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    assert asked == ["<none>"]


def test_a_list_of_formats_keeps_playlists_out() -> None:
    """With `format_whitelist` a file that names other files is not opened, whatever it says."""
    concat = b"ffconcat version 1.0\nfile /etc/hostname\n"
    with pytest.raises(av.error.PermissionError):  # taken for a list, and stopped at its file
        av.open(io.BytesIO(concat))
    with pytest.raises(av.error.ArgumentError):  # not even taken for one
        av.open(io.BytesIO(concat), container_options={"format_whitelist": "mpegts"})


def test_nvenc_is_listed_whether_or_not_there_is_a_gpu() -> None:
    """The wheel names NVENC and CUDA always, so that only encoding a frame tells the truth."""
    assert av.Codec("h264_nvenc", "w").name == "h264_nvenc"
    assert HWAccel("cuda", 0).device_id == 0


def test_this_wheel_has_no_signature_filter() -> None:
    """The perceptual hash cannot be computed here, so it is not advertised."""
    assert "signature" not in av.filter.filters_available
