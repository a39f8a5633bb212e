"""How many units a call used: what was measured, counted as its buyer counts it.

An orchestrator debits by rules of its own (docs/protocol.md); the pool must count the same, or
its books drift away from what is paid. The pool's own customers pay for what they got. Pure
arithmetic over `Measured`; what is measured, and whether an answer is right, is decided by
whoever passed it on. Read next: `core.prices`.
"""

from msgspec import Struct

from openpool.core.calls import CallSource, Unit

IMAGE_SIDE, VIDEO_WIDTH, VIDEO_HEIGHT, VIDEO_FRAMES = 512, 1024, 576, 25
"""An orchestrator's count for pictures and clips whose size was not asked for."""
LIVE_PIXELS_PER_S = 1280 * 720 * 30
"""An orchestrator bills live video as 720p at 30 frames per second, whatever it is."""
LIVE_INTERVAL_S = 5
"""An orchestrator debits a session at the end of each such interval, and no part of one."""
SPEECH_FACTOR = 1000
"""An orchestrator counts the characters of speech in thousandths."""


class Measured(Struct, frozen=True, kw_only=True):
    """What the pool saw of a call. Everything not seen stays 0."""

    audio_ms: int = 0
    characters: int = 0
    """Unicode code points of the text to be spoken or judged."""
    input_pixels: int = 0
    """Width times height of the picture that was sent, or of all of them."""
    width: int = 0
    """Of the pictures asked for, as are the next two."""
    height: int = 0
    images: int = 1
    max_tokens: int = 0
    """As requested; 0 if it was not said: an orchestrator then answers with status 400."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    session_ms: int = 0
    """How long the call or its session lasted."""
    frames: int = 0
    """That were analysed in a session."""
    frame_pixels: int = 0
    """Pixels of all of them."""


def units(pipeline: str, source: CallSource, seen: Measured, unit: Unit = "request") -> int:
    """Units of this kind that a call used, as whoever came by `source` counts them.

    `unit` is that of the price. Calls of an orchestrator's older AI interface are always counted
    in the unit of `ai_worker_unit`. ValueError if the pipeline has no such unit.
    """
    if source == "ai-worker":
        if unit != ai_worker_unit(pipeline):
            raise ValueError(f"an orchestrator does not count {pipeline} in {unit}")
        return _ai_worker_units(pipeline, seen)
    if source == "live-runner":
        return _runner_units(unit, seen)
    return _own_units(pipeline, unit, seen)


# --- an orchestrator's older AI interface --------------------------------------------------------


def ai_worker_unit(pipeline: str) -> Unit:
    """The unit of a pipeline (by its name, or ours) in an orchestrator's price file. ValueError if
    it has none."""
    match pipeline:
        case "text-to-image" | "image-to-image" | "image-to-video" | "upscale":
            return "pixel"
        case "segment-anything-2" | "image-to-text" | "live-video-to-video" | "segmentation":
            return "pixel"
        case "audio-to-text" | "speech-to-text":
            return "ms"
        case "text-to-speech":
            return "character"
        case "llm":
            return "token"
    raise ValueError(f"an orchestrator knows no pipeline {pipeline}")


def _ai_worker_units(pipeline: str, seen: Measured) -> int:
    match pipeline:
        case "text-to-image":
            return (seen.width or IMAGE_SIDE) * (seen.height or IMAGE_SIDE) * seen.images
        case "image-to-image":
            return seen.input_pixels * seen.images
        case "image-to-video":
            return (seen.width or VIDEO_WIDTH) * (seen.height or VIDEO_HEIGHT) * VIDEO_FRAMES
        case "audio-to-text" | "speech-to-text":
            return seen.audio_ms // 1000 * 1000
        case "text-to-speech":
            return seen.characters * SPEECH_FACTOR
        case "llm":
            if not seen.max_tokens:
                raise ValueError("an orchestrator refuses a chat that does not say max_tokens")
            return seen.max_tokens
        case "live-video-to-video":
            return _live_seconds(seen.session_ms) * LIVE_PIXELS_PER_S
    return seen.input_pixels


# --- Live Runner ---------------------------------------------------------------------------------


def _runner_units(unit: Unit, seen: Measured) -> int:
    """An orchestrator sells an app for a fixed price or by time, and knows nothing else."""
    match unit:
        case "request":
            return 1
        case "second":
            return _live_seconds(seen.session_ms)
        case "pixel":
            return _live_seconds(seen.session_ms) * LIVE_PIXELS_PER_S
    raise ValueError(f"an orchestrator does not count an app in {unit}")


def _live_seconds(session_ms: int) -> int:
    return session_ms // (LIVE_INTERVAL_S * 1000) * LIVE_INTERVAL_S


# --- the pool's own customers --------------------------------------------------------------------

UNITS: dict[str, tuple[Unit, ...]] = {
    "llm": ("token",),
    "embeddings": ("token",),
    "speech-to-text": ("ms", "second"),
    "text-to-speech": ("character",),
    "image-to-text": ("pixel",),
    "segmentation": ("pixel",),
    "object-detection": ("pixel",),
    "moderation": ("character", "pixel"),
    "live-video-analysis": ("second", "pixel"),
    "text-to-image": ("pixel",),
    "image-to-image": ("pixel",),
    "transcode": ("pixel",),
}
"""What each pipeline may be priced by, beside `request`; pipelines of the operator's own by
`request` and `second`."""


def units_of(pipeline: str) -> tuple[Unit, ...]:
    """Units that a price of this pipeline may have in the pool's own list, the usual one first."""
    return (*UNITS.get(pipeline, ("second",)), "request")


def _own_units(pipeline: str, unit: Unit, seen: Measured) -> int:
    if unit not in units_of(pipeline):
        raise ValueError(f"{pipeline} cannot be counted in {unit}")
    match unit:
        case "request":
            return 1
        case "token":
            return seen.prompt_tokens + seen.completion_tokens
        case "ms":
            return seen.audio_ms
        case "character":
            return seen.characters
        case "second":
            return -(-(seen.audio_ms or seen.session_ms) // 1000)
        case "pixel":
            made = seen.width * seen.height * seen.images
            return seen.frame_pixels or seen.input_pixels or made
