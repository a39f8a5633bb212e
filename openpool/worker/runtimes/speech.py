"""What runtimes that speak have in common: requests, plain text, and the sound as a file."""

import shutil
import subprocess
import tempfile
import unicodedata
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

from msgspec import Struct

from openpool.wire.forms import to_data_url
from openpool.worker.runtimes.asking import json_answer, read_json
from openpool.worker.runtimes.base import BadRequest, Runtime, RuntimeAnswer, RuntimeRequest

CHARACTERS_MAX = 4096
LIVEPEER_PATH = "/text-to-speech"
SPEAK_S_MAX = 120.0


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


class Speaker(Runtime):
    """A runtime that speaks a text, in one of its voices."""

    pipeline: ClassVar[str] = "text-to-speech"
    paths: ClassVar[tuple[str, ...]] = ("/v1/audio/speech", LIVEPEER_PATH)

    @abstractmethod
    def voices(self) -> Mapping[str, str]:
        """Its voice for each name that a client may use; `""` is for clients that name none."""

    @abstractmethod
    def speak(self, text: str, voice: str, speed: float, form: Format) -> bytes:
        """The sound file; `speed` is 0.25 to 4. Raises BadRequest."""

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        if request.path == LIVEPEER_PATH:
            return self._livepeer(read_json(request.body, LivepeerRequest, "a speech request"))
        asked = read_json(request.body, SpeechRequest, "a speech request")
        form = FORMATS.get(asked.response_format)
        if form is None:
            raise BadRequest(f"response_format must be one of {', '.join(FORMATS)}")
        if not 0.25 <= asked.speed <= 4:
            raise BadRequest("speed must be a number from 0.25 to 4")
        voice, text = self._voice(asked.voice), speakable(asked.input)
        sound = self.speak(text, voice, asked.speed, form)
        return RuntimeAnswer(content_type=form.content_type, body=sound)

    def _livepeer(self, asked: LivepeerRequest) -> RuntimeAnswer:
        words = asked.description.lower().replace(",", " ").replace(".", " ").split()
        voice = next((word for word in words if word in self.voices()), "")
        sound = self.speak(speakable(asked.text), self._voice(voice), 1.0, FORMATS["wav"])
        return json_answer({"audio": {"url": to_data_url("audio/wav", sound)}})

    def _voice(self, name: str) -> str:
        voices = self.voices()
        if name not in voices:
            known = ", ".join(sorted(set(voices.values())))
            raise BadRequest(f"voice must be one of {known}, not {name[:40]!r}")
        return voices[name]


def speakable(text: str) -> str:
    """The text in one line, without control characters. Raises BadRequest if nothing is left, or
    too much."""
    _check_length(text)
    plain = unicodedata.normalize("NFKC", text)  # a single character may become eighteen
    plain = " ".join("".join(c if c.isprintable() else " " for c in plain).split())
    _check_length(plain)
    if not any(c.isalnum() for c in plain):
        raise BadRequest("input has nothing that can be spoken")
    return plain


def _check_length(text: str) -> None:
    if len(text) > CHARACTERS_MAX:
        raise BadRequest(f"input has {len(text)} characters; at most {CHARACTERS_MAX} are spoken")


def ffmpeg_missing() -> str:
    """What has to be installed before a sound can be written; empty if nothing."""
    found = shutil.which("ffmpeg")
    return "" if found else "text to speech needs the ffmpeg command: apt-get install ffmpeg"


def sound_file(source: tuple[str, ...], content: bytes, tempo: float, form: Format) -> bytes:
    """What ffmpeg reads from `source`, whose file `content` is, at another tempo (0.25 to 4).

    Raises subprocess.SubprocessError.
    """
    # atempo takes 0.5 to 100: two of them together reach any tempo asked for
    change = f"atempo={tempo**0.5:.4f},atempo={tempo**0.5:.4f}" if tempo != 1 else "anull"
    with tempfile.TemporaryDirectory(prefix="openpool-speech-") as folder:
        Path(folder, "content").write_bytes(content)
        subprocess.run(
            [
                *("ffmpeg", "-nostdin", "-v", "error", *source, "-af", change),
                *(*form.options, "-map_metadata", "-1", "-bitexact", "sound"),
            ],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=SPEAK_S_MAX,
        )
        return Path(folder, "sound").read_bytes()
