"""Text to speech by flite, which is part of Debian's ffmpeg command. English; no download.

The text goes to ffmpeg in a file, never on its command line or in a filter's description.
"""

import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from openpool.wire.forms import to_data_url
from openpool.worker.runtimes.asking import json_answer
from openpool.worker.runtimes.base import (
    BadRequest,
    ModelMissing,
    Runtime,
    RuntimeAnswer,
    RuntimeRequest,
)

CHARACTERS_MAX = 4096
LIVEPEER_PATH = "/text-to-speech"
SPEAK_S_MAX = 120.0
VOICES = ("slt", "awb", "kal", "kal16", "rms")
OTHER_VOICES = {
    "alloy": "slt", "ash": "rms", "ballad": "awb", "coral": "slt", "echo": "rms", "fable": "awb",
    "nova": "slt", "onyx": "rms", "sage": "slt", "shimmer": "slt", "verse": "awb", "": "slt",
}  # fmt: skip
"""Names that clients of other services use, and the nearest voice."""


Asked = TypeVar("Asked")


class Format(NamedTuple):
    """A file format, and what makes ffmpeg write it."""

    content_type: str
    options: tuple[str, ...]


FORMATS = {
    "mp3": Format("audio/mpeg", ("-c:a", "libmp3lame", "-b:a", "64k", "-f", "mp3")),
    "opus": Format("audio/ogg", ("-c:a", "libopus", "-b:a", "32k", "-f", "ogg")),
    "aac": Format("audio/aac", ("-c:a", "aac", "-b:a", "64k", "-f", "adts")),
    "flac": Format("audio/flac", ("-c:a", "flac", "-f", "flac")),
    "wav": Format("audio/wav", ("-c:a", "pcm_s16le", "-f", "wav")),
    "pcm": Format("audio/pcm", ("-c:a", "pcm_s16le", "-ar", "24000", "-f", "s16le")),
}


class SpeechRequest(Struct, frozen=True):
    """The body of `/v1/audio/speech`."""

    input: str
    model: str = ""
    voice: str = ""
    response_format: str = "mp3"
    speed: float = 1.0


class LivepeerRequest(Struct, frozen=True):
    """The body of Livepeer's own route."""

    text: str
    model_id: str = ""
    description: str = ""
    """How it is to sound; the first voice that is named in it speaks."""


class TextToSpeech(Runtime):
    """Speaks a text."""

    pipeline: ClassVar[str] = "text-to-speech"
    paths: ClassVar[tuple[str, ...]] = ("/v1/audio/speech", LIVEPEER_PATH)
    known_options: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def missing(cls) -> str:
        if shutil.which("ffmpeg") is None:
            return "text to speech needs the ffmpeg command: apt-get install ffmpeg"
        return ""

    def load(self) -> None:
        try:
            speak("ready", "slt", 1.0, FORMATS["pcm"])
        except subprocess.SubprocessError:
            raise ModelMissing("This ffmpeg cannot speak: it was built without flite.") from None

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        if request.path == LIVEPEER_PATH:
            return _livepeer(_read(request.body, LivepeerRequest))
        asked = _read(request.body, SpeechRequest)
        form = FORMATS.get(asked.response_format)
        if form is None:
            raise BadRequest(f"response_format must be one of {', '.join(FORMATS)}")
        if not 0.25 <= asked.speed <= 4:
            raise BadRequest("speed must be a number from 0.25 to 4")
        text, voice = speakable(asked.input), _voice(asked.voice)
        return RuntimeAnswer(
            content_type=form.content_type, body=speak(text, voice, asked.speed, form)
        )


def _read(body: bytes, kind: type[Asked]) -> Asked:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadRequest(f"the body is not a speech request in JSON: {error}") from None


def _livepeer(asked: LivepeerRequest) -> RuntimeAnswer:
    words = asked.description.lower().replace(",", " ").replace(".", " ").split()
    voice = next((word for word in words if word in VOICES or word in OTHER_VOICES), "")
    sound = speak(speakable(asked.text), _voice(voice), 1.0, FORMATS["wav"])
    return json_answer({"audio": {"url": to_data_url("audio/wav", sound)}})


def speakable(text: str) -> str:
    """The text without what has no sound. Raises BadRequest if nothing is left, or too much."""
    if len(text) > CHARACTERS_MAX:
        raise BadRequest(f"input has {len(text)} characters; at most {CHARACTERS_MAX} are spoken")
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = " ".join("".join(c if c.isprintable() else " " for c in plain).split())
    if not any(c.isalnum() for c in plain):
        raise BadRequest("input has nothing that can be spoken in English")
    return plain


def speak(text: str, voice: str, speed: float, form: Format) -> bytes:
    """The sound file. Raises subprocess.SubprocessError."""
    # atempo takes 0.5 to 100: two of them together reach any speed asked for
    tempo = f"atempo={speed**0.5:.4f},atempo={speed**0.5:.4f}" if speed != 1 else "anull"
    with tempfile.TemporaryDirectory(prefix="openpool-speech-") as folder:
        source, sound = Path(folder, "text"), Path(folder, "sound")
        source.write_text(text + "\n")
        subprocess.run(
            [
                *("ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi"),
                *("-i", f"flite=textfile=text:voice={voice}", "-af", tempo),
                *(*form.options, "-map_metadata", "-1", "-bitexact", "sound"),
            ],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=SPEAK_S_MAX,
        )
        return sound.read_bytes()


def _voice(name: str) -> str:
    if name in VOICES:
        return name
    if name in OTHER_VOICES:
        return OTHER_VOICES[name]
    raise BadRequest(f"voice must be one of {', '.join(VOICES)}, not {name[:40]!r}")
