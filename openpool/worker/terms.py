"""What goes into the transcoding engine and what comes out: values and errors, no code that acts.

`worker.engine` takes and gives these, `worker.sessions` carries them over a pipe.
"""

from msgspec import Struct

from openpool import __version__
from openpool.core.errors import PeerError, Unavailable
from openpool.core.model import Container

TICKS = 90_000
"""Time stamps inside the engine count 1/90000 s, the clock of MPEG-TS."""


class EngineSettings(Struct, frozen=True, kw_only=True):
    """How this machine transcodes; the same for every segment."""

    preset: str = "veryfast"
    """x264's trade of CPU for quality. `medium` costs twice the CPU of `veryfast`."""
    device: int | None = None
    """Number of the NVIDIA GPU that decodes and encodes, or None for the CPU."""
    threads: int = 0
    """Threads that the encoders of a segment share; 0 is 1.5 per core. 1 costs least CPU time, and
    suits a machine with at least as many sessions as cores."""
    frame_pixels_max: int = 8192 * 4320
    """The largest source picture."""
    decoded_pixels_max: int = 20_000_000_000
    """Most pixels of one source segment: 300 s of 1080p at 30 fps."""
    version: str = __version__
    """Goes into the metadata of the renditions."""


class EncodedRendition(Struct, frozen=True, kw_only=True):
    """One finished output. `pixels` is what a decoder gets out of `data`, exactly."""

    name: str
    container: Container
    data: bytes
    width: int
    height: int
    frames: int
    pixels: int


class TranscodeResult(Struct, frozen=True, kw_only=True):
    """All renditions of a segment, in the order of its profiles."""

    renditions: tuple[EncodedRendition, ...]
    source_pixels: int
    """Pixels decoded from the source."""
    source_frames: int
    media_ms: int
    """How long the source plays."""
    took_ms: int
    """Wall time inside the engine."""

    @property
    def pixels(self) -> int:
        """Encoded pixels of all renditions."""
        return sum(rendition.pixels for rendition in self.renditions)


class InputError(PeerError):
    """The segment itself, or what is asked for it, cannot be transcoded by anybody.

    The text is one that gateways know (docs/protocol.md): they give up on the segment, not on the
    orchestrator that reports it.
    """

    code = "bad-input"


class EngineError(Unavailable):
    """This machine failed to transcode a segment that another may manage."""

    code = "engine"


INVALID_VIDEO = "TranscoderInvalidVideo"
INVALID_RESOLUTION = "TranscoderInvalidResolution"
TOO_MANY_OUTPUTS = "Too many outputs"
NO_KEYFRAMES = "No keyframes in input"
RUNAWAY = "Encoded frames runaway"
UNSUPPORTED_CODEC = "Unsupported input codec"
ENCODER_NOT_FOUND = "Encoder not found"
INVALID_ARGUMENT = "Invalid argument"
