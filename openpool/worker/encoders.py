"""Which encoder makes a rendition, with which options, and what a GPU session keeps open.

The options are those that gateways and orchestrators have always had from their transcoders
(docs/protocol.md), so that a pool's output cannot be told from theirs. Next: `worker.output`.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from fractions import Fraction

from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from openpool.core.model import Codec, H264Profile, Profile
from openpool.worker.terms import EngineError, EngineSettings

CPU_ENCODERS = {Codec.H264: "libx264", Codec.H265: "libx265"}
GPU_ENCODERS = {Codec.H264: "h264_nvenc", Codec.H265: "hevc_nvenc"}
PROFILE_NAMES = {
    H264Profile.BASELINE: "baseline",
    H264Profile.MAIN: "main",
    H264Profile.HIGH: "high",
    H264Profile.CONSTRAINED_HIGH: "high",
}
B_FRAMES = 3
GPU_QUALITY_OFFSET = 7
"""NVENC needs a higher number than x264 for the same look."""
QUALITY_MAX = {False: 63, True: 51}


def frame_rate(profile: Profile) -> Fraction | None:
    """The rate a rendition must have, or None if it keeps the timing of the source."""
    return Fraction(profile.fps_num, profile.fps_den) if profile.fps_num else None


def encoder_name(codec: Codec, settings: EngineSettings) -> str:
    """FFmpeg's name of the encoder; EngineError if this worker has none for the codec."""
    names = CPU_ENCODERS if settings.device is None else GPU_ENCODERS
    if codec not in names:
        raise EngineError(f"This worker cannot encode {codec.name}; send the job to another.")
    return names[codec]


def encoder_options(profile: Profile, settings: EngineSettings) -> dict[str, str]:
    """Options of the encoder for `profile`, as FFmpeg spells them."""
    on_gpu = settings.device is not None
    options = {"forced-idr": "1", "bf": str(_b_frames(profile, on_gpu))}
    options |= _gpu_options(profile, settings) if on_gpu else _cpu_options(profile, settings)
    if profile.codec is Codec.H264 and profile.h264_profile in PROFILE_NAMES:
        options["profile"] = PROFILE_NAMES[profile.h264_profile]
    if profile.bitrate_bps > 0:
        options |= dict.fromkeys(("b", "minrate", "maxrate", "bufsize"), str(profile.bitrate_bps))
    return options | _gop_options(profile)


def _b_frames(profile: Profile, on_gpu: bool) -> int:
    if profile.h264_profile in (H264Profile.BASELINE, H264Profile.CONSTRAINED_HIGH):
        return 0
    if not on_gpu:
        return B_FRAMES
    return B_FRAMES if profile.fps_num and profile.h264_profile is not H264Profile.DEFAULT else 0


def _gop_options(profile: Profile) -> dict[str, str]:
    """Key frames by count. Without a frame rate they are forced by time instead, in the output."""
    rate = frame_rate(profile)
    if profile.gop_ms < 0:
        return {"g": "0"}
    if profile.gop_ms and rate:
        return {"g": str(max(1, round(profile.gop_ms * rate / 1000)))}
    return {}


def _cpu_options(profile: Profile, settings: EngineSettings) -> dict[str, str]:
    options = {"preset": settings.preset}
    if profile.codec is Codec.H265:
        options["x265-params"] = "log-level=none"  # it writes to standard error by itself
    if 0 < profile.quality <= QUALITY_MAX[False]:
        options["crf"] = str(profile.quality)
    return options


def _gpu_options(profile: Profile, settings: EngineSettings) -> dict[str, str]:
    options = {"preset": "p4", "gpu": str(settings.device)}
    quality = profile.quality + GPU_QUALITY_OFFSET
    if profile.quality > 0 and quality <= QUALITY_MAX[True]:
        return options | {"rc": "vbr", "cq": str(quality)}
    return options | {"rc": "cbr"} if profile.bitrate_bps > 0 else options


def cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return max(1, min(allowed or 1, int(quota) // int(period)))
    return allowed or 1


def share_threads(sizes: Sequence[tuple[int, int]], settings: EngineSettings) -> list[int]:
    """Threads for the encoder of each size. They run side by side, so each gets its part.

    x264 alone would take 1.5 per core for every rendition: more CPU time, and no sooner done.
    """
    total = settings.threads or cores() * 3 // 2
    areas = [width * height for width, height in sizes]
    return [max(1, round(total * area / sum(areas))) for area in areas]


class Warm:
    """Decoder and encoders that a session on a GPU keeps from one segment to the next.

    Opening them costs some hundred milliseconds, flushing them almost nothing. After an error they
    cannot be trusted any more: then `drop` them.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._decoders: dict[tuple[str, bytes], VideoCodecContext] = {}
        self._encoders: dict[str, VideoCodecContext] = {}

    def decoder(self, stream: VideoStream) -> VideoCodecContext:
        """A decoder on the GPU for packets of `stream`; it falls back to the CPU by itself."""
        source = stream.codec_context
        key = (source.codec.canonical_name, source.extradata or b"")
        if key not in self._decoders:
            self._decoders.clear()
            accelerator = HWAccel("cuda", self._device, allow_software_fallback=True)
            decoder = VideoCodecContext.create(source.codec.canonical_name, "r", accelerator)
            assert isinstance(decoder, VideoCodecContext)
            decoder.extradata = source.extradata
            self._decoders[key] = decoder
        self._decoders[key].flush_buffers()
        return self._decoders[key]

    def encoder(self, key: str, make: Callable[[], VideoCodecContext]) -> VideoCodecContext:
        """The open encoder known by `key`, ready for a first frame."""
        if key in self._encoders:
            self._encoders[key].flush_buffers()
        else:
            self._encoders[key] = make()
        return self._encoders[key]

    def drop(self) -> None:
        """Close everything."""
        self._decoders.clear()
        self._encoders.clear()
