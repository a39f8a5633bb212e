"""Is an answer what was asked for, and how much was that?

No worker is credited for an answer that was not opened here and found right. `Answers.check` is
what `pool.exchange` asks; each pipeline has its check in `chat`, `text`, `sound`, `pictures` or
`sessions`. Sizes are the pool's own: pictures and sounds are opened in `pool.checkers`, tokens are
recounted there where the model's tokenizer is known, and else held against the bytes that went to
and fro.
"""

from collections.abc import Awaitable, Callable

from openpool.core.call_requests import CallRequest, Checked, Transcript
from openpool.core.calls import Usage
from openpool.core.errors import BadMessage, BadResult
from openpool.core.usage import Measured, units
from openpool.pool.answers import chat, pictures, sessions, sound, text
from openpool.pool.answers.nouns import (
    Finding,
    Opener,
    TokenCounter,
    Unmeasured,
    count_nothing,
    few_at_once,
)
from openpool.wire import framing

__all__ = ["Answers"]

LIVE = "live-video-analysis"
OK = range(200, 300)
FAULTY = range(500, 600)

Check = Callable[[Transcript, Opener], Awaitable[Finding]]
Recount = Callable[[Transcript, TokenCounter], Awaitable[Finding]]

COUNTED: dict[str, Recount] = {"llm": chat.check_chat, "embeddings": text.check_embeddings}
"""Pipelines of which tokens are counted."""

CHECKS: dict[str, Check] = {
    "moderation": text.check_moderation,
    "speech-to-text": sound.check_transcription,
    "audio-to-text": sound.check_transcription,
    "text-to-speech": sound.check_speech,
    "image-to-text": pictures.check_reading,
    "segmentation": pictures.check_cut,
    "segment-anything-2": pictures.check_masks,
    "object-detection": pictures.check_detections,
    "text-to-image": pictures.check_made,
    "image-to-image": pictures.check_made,
    "upscale": pictures.check_made,
    LIVE: sessions.check_live,
}
WHOLE_ONLY = {*CHECKS, *COUNTED} - {"llm", LIVE}
"""Of whose answers a beginning is worth nothing."""


class Answers:
    """Checks the answers of all workers."""

    def __init__(
        self, opener: Opener, count_tokens: TokenCounter = count_nothing, *, shown_at_once: int = 1
    ) -> None:
        """`count_tokens` counts with the models' own tokenizers. So many pictures of all sessions
        of live video are opened at once: of these a worker may send any number."""
        self._opener = opener
        self._opener_of_shown = few_at_once(opener, shown_at_once)
        self._count_tokens = count_tokens

    async def check(self, said: Transcript) -> Checked:
        """What a call that has ended comes to. Never raises for what was said in it."""
        if said.status not in OK:
            return _nothing(said, f"answered with status {said.status}", said.status in FAULTY)
        try:
            finding = await self._find(said)
            count = units(said.app.pipeline, said.source, finding.seen, said.unit)
        except BadResult as fault:
            return _nothing(said, str(fault), blamed=True)
        except (BadMessage, Unmeasured) as fault:
            return _nothing(said, f"the request could not be measured: {fault}")
        except ValueError as fault:
            return _nothing(said, str(fault))
        note = f"{finding.note}; then {said.fault}" if said.fault else finding.note
        usage = Usage(unit=said.unit, units=count, checked=True, note=note)
        return Checked(usage=usage, blamed=bool(said.fault))

    def follow(self, request: CallRequest) -> sessions.LiveCheck | sessions.OwnCheck | None:
        """Checks the answer of a call that lasts while it passes; None if it can be checked at its
        end only."""
        pipeline = request.app.pipeline
        if pipeline == LIVE and request.headers.get("content-type") == framing.CONTENT_TYPE:
            annotated = sessions.wants_pictures(request.path)
            return sessions.LiveCheck(self._opener_of_shown, annotated=annotated)
        return None if pipeline in {*CHECKS, *COUNTED} else sessions.OwnCheck()

    async def _find(self, said: Transcript) -> Finding:
        pipeline = said.app.pipeline
        if not said.whole and pipeline in WHOLE_ONLY:
            raise Unmeasured("the answer is not complete")
        if recount := COUNTED.get(pipeline):
            return await recount(said, self._count_tokens)
        return await CHECKS.get(pipeline, _check_own)(said, self._opener)


async def _check_own(said: Transcript, _: Opener) -> Finding:
    """A pipeline of the operator's own: nothing is known but that there is an answer."""
    if said.seen is None and not said.answer:
        raise BadResult("the answer is empty")
    seen = said.seen or Measured(session_ms=said.took_ms)
    return Finding(seen, "an answer came; what it should be is not known to the pool")


def _nothing(said: Transcript, why: str, blamed: bool = False) -> Checked:
    return Checked(usage=Usage(unit=said.unit, units=0, checked=False, note=why), blamed=blamed)
