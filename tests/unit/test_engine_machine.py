"""What the machine can do, found out by doing it."""

import shutil

import pytest
from reading import read

from openpool.core.capabilities import DEFAULT, Capability, fits, names
from openpool.core.model import Codec, H264Profile, Profile, Segment
from openpool.demo.media import make_segments
from openpool.worker.encoders import Warm, cores, encoder_options, share_threads
from openpool.worker.engine import EngineSettings, transcode
from openpool.worker.gpu import Machine, can_encode, capabilities, find_machine, probe

needs_gpu = pytest.mark.skipif(
    not can_encode("h264_nvenc"),
    reason="no NVENC encoder answers on this machine"
    + ("" if shutil.which("nvidia-smi") else " (there is no NVIDIA driver)"),
)
GPU = EngineSettings(device=0)


async def test_the_machine_is_found_in_another_process() -> None:
    """The probe in a process of its own finds what the probe in this one finds."""
    machine = await find_machine()
    assert machine == probe()
    assert "libx264" in machine.encoders


def test_a_list_of_encoders_is_not_believed() -> None:
    """An encoder counts only if it makes a packet: an unknown one and a wrong format do not."""
    assert can_encode("libx264")
    assert not can_encode("h264_unheard_of")
    assert not can_encode("libx264", "rgb24")


def test_the_worker_offers_the_default_without_the_hash() -> None:
    """Every worker offers the default set, but never the perceptual hash."""
    bits = capabilities(Machine(cores=1, encoders=("libx264",)))
    assert fits(DEFAULT & ~(1 << Capability.MPEG7_SIGNATURE), bits)
    assert "mpeg7-signature" not in names(bits)
    assert "hevc-encode" not in names(bits)


def test_the_worker_offers_what_works() -> None:
    """HEVC is offered where the encoder of the chosen device works, not that of the other."""
    both = Machine(cores=1, encoders=("libx264", "libx265", "h264_nvenc"))
    assert both.device == 0
    assert "hevc-encode" not in names(capabilities(both))
    cpu = Machine(cores=1, encoders=("libx264", "libx265"))
    assert cpu.device is None
    assert "hevc-encode" in names(capabilities(cpu))


def test_input_formats_are_tried() -> None:
    """This machine decodes the sample formats that it claims, HEVC and 10 bit among them."""
    offered = names(capabilities(probe()))
    assert {"hevc-decode", "h264-decode-420-10bit", "vp9-decode"} <= set(offered)


def test_cores_are_those_allowed() -> None:
    """The number of cores is at least one and not more than the machine has."""
    assert 1 <= cores() <= 4096


def test_threads_go_where_the_pixels_are() -> None:
    """Encoders share the threads by their pixels, and none goes without."""
    ladder = [(1280, 720), (854, 480), (640, 360), (426, 240)]
    assert share_threads(ladder, EngineSettings(threads=24)) == [13, 6, 3, 1]
    assert share_threads(ladder, EngineSettings(threads=1)) == [1, 1, 1, 1]
    assert sum(share_threads(ladder, EngineSettings())) >= 4


def options(device: int | None, **changes: object) -> dict[str, str]:
    asked = {"name": "p", "width": 640, "height": 360, "bitrate_bps": 10**6, **changes}
    return encoder_options(Profile(**asked), EngineSettings(device=device))  # type: ignore[arg-type]


def test_nvenc_has_b_frames_only_with_a_rate_and_a_profile() -> None:
    """On a GPU, B-frames need both a profile that has them and a frame rate."""
    assert options(0)["bf"] == "0"
    assert options(0, h264_profile=H264Profile.HIGH)["bf"] == "0"
    assert options(0, h264_profile=H264Profile.HIGH, fps_num=30)["bf"] == "3"
    assert options(None)["bf"] == "3"


def test_quality_is_shifted_for_nvenc() -> None:
    """The same quality is CRF on the CPU and a higher CQ on a GPU, where values end at 51."""
    assert options(None, quality=20)["crf"] == "20"
    assert options(0, quality=20)["cq"] == "27"
    assert "cq" not in options(0, quality=45)


def test_bit_rate_is_constant() -> None:
    """Rate, its bounds and its buffer are all the bit rate asked for; NVENC is told CBR."""
    for device in (None, 0):
        made = options(device)
        assert {made[key] for key in ("b", "minrate", "maxrate", "bufsize")} == {"1000000"}
    assert options(0)["rc"] == "cbr"


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
def test_a_warm_gpu_loses_no_frame(codec: Codec) -> None:
    """On a GPU, with everything kept between segments, every frame comes out, IDR first."""
    warm = Warm(0)
    profiles = tuple(
        Profile(name=f"{w}", width=w, height=w, bitrate_bps=500_000, codec=codec)
        for w in (426, 640)
    )
    for source in make_segments(1280, 720, 30, 1, 3):
        result = transcode(source, Segment(seq=1, duration_ms=1000, profiles=profiles), GPU, warm)
        for rendition in result.renditions:
            seen = read(rendition.data)
            assert seen.pixels == rendition.pixels
            assert seen.pts == read(source).pts
            assert seen.keys[0]
