"""Checks of speech: what was heard in a sound, and what a text sounds like."""

import msgspec
from msgspec import Struct

from openpool.core.call_requests import Transcript
from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage, BadResult
from openpool.core.texts import plural
from openpool.core.usage import Measured
from openpool.pool.answers.nouns import Finding, Opener, demand, open_result, read_answer
from openpool.pool.findings import Weight
from openpool.wire.forms import data_url, read_form

QUIET_PEAK = 650
"""2 % of full scale: in less than this there may be nothing to hear."""
CHARACTERS_PER_S_MAX = 60
CHARACTERS_SPARE = 400
"""Nobody speaks faster; a short text may carry numbers written out."""
SPOKEN_PER_S_MAX = 60
SPOKEN_MS_MAX = 1_500
"""A character takes no longer than this, with 10 s to spare for what is read out at length."""
SPOKEN_SPARE_MS = 10_000
RAW_HZ = 24_000
RAW_TYPES = ("audio/pcm", "audio/l16")


class _Heard(Struct):
    text: str


async def check_transcription(said: Transcript, opened: Opener) -> Finding:
    """Text of a plausible length for the sound; none only where nothing can be heard."""
    form = read_form(said.request_type, said.request, "file")
    sound = await opened(form.file("file", "audio"))
    if not sound.audio_ms:
        raise BadMessage("the file holds no sound")
    heard = _text(said)
    quiet = sound.peak < QUIET_PEAK
    demand(bool(heard.strip()) or quiet, "nothing was heard in a sound that is not silent")
    limit = sound.audio_ms * CHARACTERS_PER_S_MAX // 1000 + CHARACTERS_SPARE
    said_text = plural(len(heard), "character")
    demand(len(heard) <= limit, f"{said_text} cannot be said in {sound.audio_ms} ms")
    return Finding(Measured(audio_ms=sound.audio_ms), f"{sound.audio_ms} ms of sound")


class _Event(Struct):
    """An event of a transcription that is told piece by piece."""

    delta: str = ""
    text: str | None = None


def _text(said: Transcript) -> str:
    """The text that was heard, in whichever form it was told."""
    if said.answer_type.startswith("application/json"):
        return read_answer(said.answer, _Heard).text
    try:
        told = said.answer.decode()
    except UnicodeDecodeError:
        raise BadResult("the answer is neither JSON nor text") from None
    if said.answer_type.startswith("text/event-stream"):
        return _of_events(told)
    lines = told.splitlines()
    return "\n".join(line for line in lines if "-->" not in line and not line.strip().isdigit())


def _of_events(told: str) -> str:
    payloads = [line[5:].strip() for line in told.splitlines() if line.startswith("data:")]
    events = [read_answer(line.encode(), _Event) for line in payloads if line != "[DONE]"]
    whole = next((event.text for event in reversed(events) if event.text is not None), None)
    return "".join(event.delta for event in events) if whole is None else whole


class _SpeechAsked(Struct):
    input: str = ""
    text: str = ""
    speed: float | None = None


class _Audio(Struct):
    url: str


class _SpeechInJson(Struct):
    audio: _Audio


async def check_speech(said: Transcript, opened: Opener) -> Finding:
    """A sound that is about as long as the text takes to say, and not silent."""
    try:
        asked = msgspec.json.decode(said.request, type=_SpeechAsked)
    except UNREADABLE as fault:
        raise BadMessage(f"it asks for no speech: {fault}") from None
    characters = len(asked.input or asked.text)
    speed = min(max(asked.speed or 1.0, 0.25), 4.0)
    sound = await _spoken(said, opened)
    demand(sound.audio_ms > 0, "the answer holds no sound")
    least = characters * 1000 / SPOKEN_PER_S_MAX / speed
    most = characters * SPOKEN_MS_MAX / speed + SPOKEN_SPARE_MS
    demand(
        least <= sound.audio_ms <= most,
        f"{sound.audio_ms} ms are not how long {plural(characters, 'character')} would take to say",
    )
    has_words = any(letter.isalnum() for letter in asked.input or asked.text)
    demand(sound.peak >= QUIET_PEAK or not has_words, "the sound is silent")
    seen = Measured(characters=characters, audio_ms=sound.audio_ms)
    return Finding(seen, f"{plural(characters, 'character')}, {sound.audio_ms} ms of sound")


async def _spoken(said: Transcript, opened: Opener) -> Weight:
    if said.answer_type.startswith(RAW_TYPES):
        return _raw(said.answer)
    data = said.answer
    if said.answer_type.startswith("application/json"):
        try:
            data = data_url(read_answer(data, _SpeechInJson).audio.url).data
        except BadMessage as fault:
            raise BadResult(str(fault)) from None
    return await open_result(opened, data, "the sound")


def _raw(data: bytes) -> Weight:
    """Bare samples of 16 bits at 24 kHz, as OpenAI's `pcm` is."""
    samples = memoryview(data[: len(data) // 2 * 2]).cast("h")
    peak = max((abs(sample) for sample in samples[: RAW_HZ * 10]), default=0)
    return Weight(audio_ms=len(samples) * 1000 // RAW_HZ, peak=min(peak, 32_767))
