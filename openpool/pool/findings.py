"""What the pool can ask of a file, and what it can be told: values only, no FFmpeg.

The questions go to child processes (`pool.checkers`), which answer them in `pool.checking`; so the
pool's own process never loads a decoder, and never opens a stranger's bytes with one.
"""

from msgspec import Struct

from openpool.core.model import SourceInfo


class Unreadable(Exception):
    """The bytes are not a video; the text says why and fits behind "it"."""


class Probe(Struct, frozen=True, kw_only=True, tag=True):
    """A video file as the pool measured it."""

    container: str
    codec: str
    width: int
    height: int
    frames: int
    starts_with_key: bool
    times_us: tuple[int, ...]
    """When each frame is shown, in order. Frames without a time stamp are missing."""
    tidy: bool
    """Every frame has a time, and decoding times only increase."""
    whole: bool
    """MPEG-TS: not cut off in the middle of a transport packet."""
    bytes: int
    video_bytes: int
    audio: tuple[tuple[int, ...], ...]
    """Checksums of the sound packets, per sound stream."""
    sha256: str
    packets: int = 0
    """Frames by packets, where `frames` were counted by decoding and are another number."""

    @property
    def pixels(self) -> int:
        return self.frames * self.width * self.height

    @property
    def span_us(self) -> int:
        """From the first to the last frame."""
        return self.times_us[-1] - self.times_us[0] if self.times_us else 0

    @property
    def interval_us(self) -> int:
        """Mean time between frames; 0 for a single one."""
        return self.span_us // (len(self.times_us) - 1) if len(self.times_us) > 1 else 0

    @property
    def last_gap_us(self) -> int:
        """Time between the last two frames: the best guess of how long the last one is shown."""
        return self.times_us[-1] - self.times_us[-2] if len(self.times_us) > 1 else 0

    def source_info(self, duration_ms: int) -> SourceInfo:
        """The summary of a source; `duration_ms` stands in where a single frame tells nothing."""
        measured_ms = (self.span_us + self.last_gap_us) // 1000
        return SourceInfo(
            width=self.width,
            height=self.height,
            frames=self.frames,
            duration_ms=measured_ms or duration_ms,
            bytes=self.bytes,
            audio_packets=max((len(stream) for stream in self.audio), default=0),
        )


class Look(Struct, frozen=True, tag=True):
    """Thumbnails in the order in which they are shown; times count from the first."""

    times_us: tuple[int, ...]
    thumbnails: tuple[bytes, ...]


class Weight(Struct, frozen=True, kw_only=True, tag=True):
    """What there is in a file. Everything not there is 0."""

    width: int = 0
    height: int = 0
    audio_ms: int = 0
    peak: int = 0
    """The loudest sample near the beginning, of 32,767."""


class Measure(Struct, frozen=True, tag=True):
    """Measure the file; answered by a Probe."""


class Recount(Struct, frozen=True, tag=True):
    """Count the file's frames by decoding it; answered by a Probe."""

    measured: Probe


class See(Struct, frozen=True, tag=True):
    """Look at a source, or the clip of it that is asked for; answered by a Look.

    A damaged source gets a Fault: what a worker's decoder makes of it cannot be foreseen.
    """

    clip_from_ms: int = 0
    clip_to_ms: int = 0


class Compare(Struct, frozen=True, tag=True):
    """Does the file show the same? Answered by a Fault, with an empty text if it does."""

    source: Look
    slack: float = 1.0


class Weigh(Struct, frozen=True, tag=True):
    """How large is this picture, or how long is this sound? Answered by a Weight."""


class CountTokens(Struct, frozen=True, tag=True):
    """How many tokens have the texts, a MessagePack list? Answered by a Counted."""

    tokenizer: str
    """The file of the tokenizer, which is the operator's own."""
    marks: bool
    """Whether to count the marks that the tokenizer puts around a text, too."""


class Counted(Struct, frozen=True, tag=True):
    """Tokens of each text."""

    tokens: tuple[int, ...]


class Fault(Struct, frozen=True, tag=True):
    """Why the file cannot be opened, or what is wrong with it."""

    text: str


Request = Measure | Recount | See | Compare | Weigh | CountTokens
Answer = Probe | Look | Weight | Counted | Fault
