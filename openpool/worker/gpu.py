"""What this machine can do, found out by doing it.

Lists of codecs lie: FFmpeg names NVENC where no GPU is, and some GPUs have no encoder. So every
encoder here has encoded a frame, and every decoder has decoded one. `find_machine` does that in a
process of its own: a driver that crashes must not take the worker with it, and CUDA's memory goes
when it ends. Run as `python -m openpool.worker.gpu` it prints what it found, as JSON.
"""

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, PIPE
from fractions import Fraction

import av
import msgspec
from av.codec.codec import UnknownCodecError
from av.codec.hwaccel import HWAccel
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from msgspec import Struct

from openpool.core.capabilities import DEFAULT, Capability, bit_set
from openpool.core.decoding import UNREADABLE
from openpool.core.model import Codec
from openpool.worker.encoders import CPU_ENCODERS, GPU_ENCODERS, cores

PROBE_S = 30.0
WIDTH, HEIGHT = 256, 144
SESSIONS_TRIED_MAX = 64

BASE = DEFAULT & ~bit_set(Capability.MPEG7_SIGNATURE)
"""What every worker can do. This engine cannot compute the perceptual hash."""
INPUTS = {
    Capability.HEVC_DECODE: ("libx265", "yuv420p", "hevc"),
    Capability.VP8_DECODE: ("libvpx", "yuv420p", "vp8"),
    Capability.VP9_DECODE: ("libvpx-vp9", "yuv420p", "vp9"),
    Capability.H264_DECODE_444_8BIT: ("libx264", "yuv444p", "h264"),
    Capability.H264_DECODE_422_8BIT: ("libx264", "yuv422p", "h264"),
    Capability.H264_DECODE_444_10BIT: ("libx264", "yuv444p10le", "h264"),
    Capability.H264_DECODE_422_10BIT: ("libx264", "yuv422p10le", "h264"),
    Capability.H264_DECODE_420_10BIT: ("libx264", "yuv420p10le", "h264"),
}
"""Optional source formats, and how to make and decode a sample of each."""


class Machine(Struct, frozen=True, kw_only=True):
    """Encoders and decoders that work here."""

    cores: int
    gpu: str = ""
    """Name of GPU 0, or empty."""
    encoders: tuple[str, ...] = ()
    """FFmpeg's names, all proven."""
    decodes_on_gpu: bool = False
    gpu_sessions_max: int = 0
    """How many H.264 encoders the GPU opened at once (at most 64 were tried)."""
    input_capabilities: int = 0
    """Bit set of the source formats that the CPU decodes beyond plain H.264."""

    @property
    def device(self) -> int | None:
        """The GPU to transcode on, or None for the CPU."""
        return 0 if GPU_ENCODERS[Codec.H264] in self.encoders else None


MACHINES = msgspec.json.Decoder(Machine)


def capabilities(machine: Machine) -> int:
    """What the worker may advertise, as a bit set of go-livepeer's capability numbers."""
    names = CPU_ENCODERS if machine.device is None else GPU_ENCODERS
    hevc = bit_set(Capability.HEVC_ENCODE) if names[Codec.H265] in machine.encoders else 0
    return BASE | hevc | machine.input_capabilities


async def find_machine() -> Machine:
    """What this machine can do; only its cores and x264 where the probe crashes or hangs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openpool.worker.gpu"),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PROBE_S):
            output, _ = await process.communicate()
        found: Machine = MACHINES.decode(output)
        return found
    except (TimeoutError, *UNREADABLE):
        return Machine(cores=cores(), encoders=("libx264",))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def probe() -> Machine:
    """The same in this process."""
    names = (*CPU_ENCODERS.values(), *GPU_ENCODERS.values())
    encoders = tuple(name for name in names if can_encode(name))
    on_gpu = GPU_ENCODERS[Codec.H264] in encoders
    return Machine(
        cores=cores(),
        gpu=_gpu_name(),
        encoders=encoders,
        decodes_on_gpu=on_gpu and can_decode_on_gpu(),
        gpu_sessions_max=_gpu_sessions() if on_gpu else 0,
        input_capabilities=_input_capabilities(),
    )


def can_encode(name: str, pixel_format: str = "yuv420p") -> bool:
    """Whether the encoder really makes a packet of a frame."""
    return bool(_encode(name, pixel_format))


def can_decode_on_gpu() -> bool:
    """Whether the GPU really decodes H.264."""
    packets = _encode("libx264", "yuv420p")
    try:
        decoder = VideoCodecContext.create("h264", "r", HWAccel("cuda", 0))
        return bool(_decode(decoder, packets))
    except (FFmpegError, RuntimeError, NotImplementedError):
        return False


def _input_capabilities() -> int:
    """Encode a frame in each format, and see whether it decodes."""
    works = []
    for capability, (encoder, pixel_format, decoder) in INPUTS.items():
        context = VideoCodecContext.create(decoder, "r")
        if _decode(context, _encode(encoder, pixel_format)):
            works.append(capability)
    return bit_set(*works)


def _open_encoder(name: str, pixel_format: str) -> VideoCodecContext:
    context = VideoCodecContext.create(name, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, pixel_format
    context.framerate, context.time_base = Fraction(30), Fraction(1, 30)
    if name == "libx265":
        context.options = {"x265-params": "log-level=none"}
    context.open()
    return context


def _encode(name: str, pixel_format: str) -> list[Packet]:  # type: ignore[type-arg]  # see source.py
    try:
        context = _open_encoder(name, pixel_format)
        frame = VideoFrame(WIDTH, HEIGHT, pixel_format)
        frame.pts, frame.time_base = 0, Fraction(1, 30)
        return [*context.encode(frame), *context.encode(None)]
    except (FFmpegError, UnknownCodecError, ValueError):
        return []


def _decode(decoder: object, packets: list[Packet]) -> list[VideoFrame]:  # type: ignore[type-arg]
    assert isinstance(decoder, VideoCodecContext)
    try:
        frames = [frame for packet in packets for frame in decoder.decode(packet)]
        return frames + decoder.decode(None)
    except FFmpegError:
        return []


def _gpu_sessions() -> int:
    """Encoders that the GPU opens at once: the driver of consumer cards limits them."""
    held: list[VideoCodecContext] = []
    with contextlib.suppress(FFmpegError):
        while len(held) < SESSIONS_TRIED_MAX:
            held.append(_open_encoder(GPU_ENCODERS[Codec.H264], "yuv420p"))
    return len(held)


def _gpu_name() -> str:
    """Name of the first GPU; empty without one, or without the `gpu` extra."""
    try:
        import pynvml  # type: ignore[import-untyped]  # it has none
    except ImportError:
        return ""
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)))
    except pynvml.NVMLError:
        return ""


if __name__ == "__main__":
    av.logging.set_level(None)
    sys.stdout.buffer.write(msgspec.json.encode(probe()))
