"""The nouns of HTTP work (AI and whatever else travels as a request and its answer).

A *call* is one HTTP exchange that a worker serves: a chat completion, a transcription, or a whole
session of live video. An *app* is what it asks for: a pipeline and a model. Workers *offer* apps.
What the pool decides about calls is in `core.desk`; what a call is worth in `core.usage`.
"""

from typing import Literal

from msgspec import Struct

CallSource = Literal["direct", "live-runner", "ai-worker"]
Unit = Literal["pixel", "token", "ms", "character", "request", "second"]
CallFailure = Literal[
    "insufficient-capacity",
    "no-such-app",
    "timeout",
    "worker-failed",
    "cancelled",
    "pool-restarted",
]
"""Why a call had no (whole) answer, for programs."""


class App(Struct, frozen=True, order=True):
    """What is asked for and offered, written `pipeline/model`; a model name may hold slashes."""

    pipeline: str
    """`llm`, `embeddings`, `speech-to-text`, `text-to-speech`, `image-to-text`, `segmentation`,
    `object-detection`, `moderation`, `live-video-analysis`, or the operator's own name."""
    model: str

    def __str__(self) -> str:
        return f"{self.pipeline}/{self.model}"


class Offer(Struct, frozen=True, kw_only=True):
    """An app that a worker serves at this moment."""

    app: App
    capacity: int
    """Calls it takes at once."""
    warm: bool = False
    """Whether the model is in memory already."""
    streaming: bool = False
    session: bool = False
    """Whether calls are long sessions (live video) rather than single requests."""
    vram_mb: int = 0
    gpu: str = ""


class Usage(Struct, frozen=True, kw_only=True):
    """What a finished call used, as the pool counted it."""

    unit: Unit
    units: int
    checked: bool
    """Whether the answer was opened and found right; nothing is credited otherwise."""
    note: str = ""
    """How it was counted, or why it was not accepted, in words."""
