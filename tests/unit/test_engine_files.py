"""The transcoding engine: the files it writes, byte by byte where a player or gateway looks."""

import io
import struct

import av
import pytest
from reading import Reading, read

from openpool.core.model import Codec, Container, H264Profile, Profile, Segment
from openpool.demo.media import make_segments
from openpool.worker.encoders import Warm
from openpool.worker.engine import EngineSettings, transcode

SETTINGS = EngineSettings(preset="veryfast")
FIRST, SECOND = make_segments(320, 180, 30, 1, 2, seed=2, b_frames=2)
ORCHESTRATOR = "0x00000000000000000000000000000000000000aa"


def run(source: bytes, settings: EngineSettings = SETTINGS, **changes: object) -> bytes:
    asked = {"name": "p", "width": 256, "height": 144, "bitrate_bps": 300_000, **changes}
    segment = Segment(
        seq=1,
        duration_ms=1000,
        profiles=(Profile(**asked),),  # type: ignore[arg-type]  # test values
        orchestrator_address=ORCHESTRATOR,
    )
    return transcode(source, segment, settings).renditions[0].data


@pytest.mark.parametrize("container", ["mpegts", "mp4"])
@pytest.mark.parametrize("audio", [True, False])
def test_streams_are_video_then_audio(container: Container, audio: bool) -> None:
    """Video is the first stream; there is audio exactly if the source has it."""
    source = make_segments(320, 180, 30, 1, 1, audio)[0]
    assert read(run(source, container=container)).order == ["video", "audio"][: 1 + audio]


def test_container_is_the_one_asked_for() -> None:
    """MPEG-TS has its sync bytes; MP4 has its index before its data, to start while it loads."""
    stream = run(FIRST)
    assert len(stream) % 188 == 0
    assert set(stream[::188]) == {0x47}
    boxes = mp4_boxes(run(FIRST, container="mp4"))
    assert boxes[0] == "ftyp"
    assert boxes.index("moov") < boxes.index("mdat")


def mp4_boxes(data: bytes) -> list[str]:
    names, place = [], 0
    while place < len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        names.append(name.decode())
        place += size
    return names


def test_audio_is_copied_packet_by_packet() -> None:
    """Every audio packet of the source is in every MPEG-TS rendition: same bytes, same time."""
    for source in (FIRST, SECOND):
        assert read(run(source)).audio == read(source).audio


def test_audio_is_the_same_in_mp4() -> None:
    """In MP4 the packets lose only their seven-byte ADTS header."""
    copied = read(run(FIRST, container="mp4")).audio
    assert [data for _, data in copied] == [data[7:] for _, data in read(FIRST).audio]
    assert all(abs(a[0] - b[0]) <= 2 for a, b in zip(copied, read(FIRST).audio, strict=True))


def test_audio_of_an_mp4_source_goes_into_transport_stream() -> None:
    """Copying from MP4 to MPEG-TS gives the packets the header that they need there."""
    source = make_segments(320, 180, 30, 1, 1, container="mp4")[0]
    copied = [data[7:] for _, data in read(run(source)).audio]
    assert copied == [data for _, data in read(source).audio]


def test_mp4_keeps_absolute_times() -> None:
    """In MP4 as well, the pictures are shown when those of the source are."""
    assert read(run(SECOND, container="mp4")).pts == read(SECOND).pts


def test_metadata_names_the_orchestrator() -> None:
    """Both containers say who made the rendition, for which orchestrator."""
    maker = f"Livepeer Transcoder {SETTINGS.version} ({ORCHESTRATOR})"
    assert read(run(FIRST, container="mp4")).metadata["comment"] == f"Processed by {maker}"
    assert maker.encode() in run(FIRST)


BASELINE, MAIN, HIGH = 66, 77, 100


@pytest.mark.parametrize(
    ("asked", "profile_idc", "b_frames"),
    [
        (H264Profile.DEFAULT, HIGH, True),
        (H264Profile.BASELINE, BASELINE, False),
        (H264Profile.MAIN, MAIN, True),
        (H264Profile.HIGH, HIGH, True),
        (H264Profile.CONSTRAINED_HIGH, HIGH, False),
    ],
)
def test_h264_profile(asked: H264Profile, profile_idc: int, b_frames: bool) -> None:
    """The sequence header names the profile asked for, and B-frames are there only if it may."""
    seen = read(run(FIRST, h264_profile=asked))
    assert seen.sps[0] == profile_idc
    assert (seen.video_dts != seen.pts) == b_frames


def seconds(reading: Reading) -> float:
    return len(reading.pts) / 30


@pytest.mark.parametrize("bitrate_bps", [100_000, 400_000])
def test_bit_rate_is_kept(bitrate_bps: int) -> None:
    """Over four seconds the video takes its bit rate, give or take a quarter."""
    source = make_segments(320, 180, 30, 4, 1)[0]
    seen = read(run(source, bitrate_bps=bitrate_bps))
    assert seen.video_bytes * 8 / seconds(seen) == pytest.approx(bitrate_bps, rel=0.25)


def test_quality_sets_the_size() -> None:
    """A better quality value makes a larger file than a worse one, at the same bit rate limit."""
    fine, coarse = (
        read(run(FIRST, quality=q, bitrate_bps=5_000_000)).video_bytes for q in (20, 40)
    )
    assert fine > 2 * coarse


def test_no_bit_rate_still_encodes() -> None:
    """A profile without bit rate gets the encoder's own idea of quality."""
    assert len(read(run(FIRST, bitrate_bps=0)).pts) == 30


def test_presets_differ() -> None:
    """The preset reaches the encoder: a slower one makes another file."""
    assert run(FIRST, EngineSettings(preset="medium")) != run(FIRST)


class ColdStart(Warm):
    """Keeps nothing, and decodes on the CPU: the way of a GPU session without the GPU."""

    def __init__(self) -> None:
        super().__init__(0)

    def decoder(self, stream: av.VideoStream) -> av.VideoCodecContext:
        return stream.codec_context


@pytest.mark.parametrize("container", ["mpegts", "mp4"])
@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
def test_encoders_that_outlive_the_file(container: Container, codec: Codec) -> None:
    """A file made with an encoder that is not its own, as on a GPU, shows the same pictures."""
    profile = Profile(
        name="p", width=256, height=144, bitrate_bps=300_000, container=container, codec=codec
    )
    segment = Segment(seq=1, duration_ms=1000, profiles=(profile,))
    kept = transcode(FIRST, segment, SETTINGS, ColdStart()).renditions[0].data
    own = transcode(FIRST, segment, SETTINGS).renditions[0].data
    assert read(kept).pts == read(own).pts == read(FIRST).pts
    assert len(read(kept).audio) == len(read(FIRST).audio)


def test_nothing_is_written_to_disk(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Even MP4, whose index moves to the front at the end, is made in memory only."""
    monkeypatch.chdir(tmp_path)
    run(FIRST, container="mp4")
    assert list(tmp_path.iterdir()) == []


def test_renditions_come_in_the_order_asked_for() -> None:
    """Names and order are those of the profiles."""
    names = ["z", "a", "m"]
    profiles = tuple(Profile(name=n, width=256, height=144, bitrate_bps=9**6) for n in names)
    result = transcode(FIRST, Segment(seq=1, duration_ms=1000, profiles=profiles), SETTINGS)
    assert [rendition.name for rendition in result.renditions] == names


def test_the_source_may_be_flv_or_matroska() -> None:
    """What gateways take from encoders in other containers works too."""
    for form in ("flv", "matroska"):
        buffer = io.BytesIO()
        with av.open(io.BytesIO(FIRST)) as source, av.open(buffer, "w", form) as out:
            copies = {s.index: out.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.size:
                    packet.stream = copies[packet.stream.index]
                    out.mux(packet)
        assert len(read(run(buffer.getvalue())).pts) == 30
