"""The nouns of transcoding, as plain frozen values.

Sizes are in pixels, durations in milliseconds, rates in bits per second. A set of capabilities is
one `int`, bit n standing for go-livepeer's capability number n (`core.capabilities`).
"""

from enum import IntEnum
from typing import Literal

from msgspec import Struct

Container = Literal["mpegts", "mp4"]
WorkerKind = Literal["openpool", "stock"]


class Codec(IntEnum):
    """Video codec of a rendition, numbered as on the wire (`VideoProfile.encoder`)."""

    H264 = 0
    H265 = 1
    VP8 = 2
    VP9 = 3


class H264Profile(IntEnum):
    """Encoder profile, numbered as on the wire (`VideoProfile.profile`)."""

    DEFAULT = 0
    BASELINE = 1
    MAIN = 2
    HIGH = 3
    CONSTRAINED_HIGH = 4


class Profile(Struct, frozen=True, kw_only=True):
    """One output that a job asks for. Width and height are the box asked for, not the result."""

    name: str
    width: int
    height: int
    bitrate_bps: int
    fps_num: int = 0
    """0 keeps the timing of the source."""
    fps_den: int = 1
    container: Container = "mpegts"
    h264_profile: H264Profile = H264Profile.DEFAULT
    gop_ms: int = 0
    """0 is the encoder's default, -1 makes every frame a key frame."""
    codec: Codec = Codec.H264
    quality: int = 0
    """0 is off, else the CRF value."""


class Segment(Struct, frozen=True, kw_only=True):
    """What is to be done with one source segment."""

    seq: int
    duration_ms: int
    profiles: tuple[Profile, ...]
    capabilities: int = 0
    """What a worker must be able to do, as a bit set."""
    min_version: str = ""
    perceptual_hash: bool = False
    clip_from_ms: int = 0
    clip_to_ms: int = 0
    """A clip is asked for when `clip_to_ms` > 0; both count from the first frame."""
    reinit: bool = False
    """Throw away the state of encoder and decoder first."""
    orchestrator_address: str = ""
    """Goes into the metadata of the renditions."""


class Rendition(Struct, frozen=True, kw_only=True):
    """One finished output as the pool measured it (never as a worker claimed it)."""

    name: str
    width: int
    height: int
    frames: int
    pixels: int
    bytes: int
    sha256: str


class SourceInfo(Struct, frozen=True, kw_only=True):
    """A source segment as the pool measured it."""

    width: int
    height: int
    frames: int
    duration_ms: int
    bytes: int
    audio_packets: int = 0


class Verdict(Struct, frozen=True, kw_only=True):
    """What opening a result showed. `ok` means every check passed.

    `input_fault` is set when the source itself, opened by the pool, cannot be transcoded: then no
    worker is to blame and the error may surface upstream.
    """

    ok: bool
    reason: str = ""
    input_fault: bool = False
    source: SourceInfo | None = None
    renditions: tuple[Rendition, ...] = ()
    checked_ms: int = 0

    @property
    def pixels(self) -> int:
        """Encoded pixels of all renditions: what is paid for."""
        return sum(rendition.pixels for rendition in self.renditions)
