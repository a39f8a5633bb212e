"""Text to speech by flite, which is part of Debian's ffmpeg command. English; no download.

The text goes to ffmpeg in a file, never on its command line or in a filter's description.
"""

import subprocess
import unicodedata
from collections.abc import Mapping
from typing import ClassVar

from openpool.worker.runtimes.base import BadRequest, ModelMissing
from openpool.worker.runtimes.options import KnownOptions
from openpool.worker.runtimes.speech import FORMATS, Format, Speaker, ffmpeg_missing, sound_file

VOICES = ("slt", "awb", "kal", "kal16", "rms")
OTHER_VOICES = {
    "alloy": "slt", "ash": "rms", "ballad": "awb", "coral": "slt", "echo": "rms", "fable": "awb",
    "nova": "slt", "onyx": "rms", "sage": "slt", "shimmer": "slt", "verse": "awb", "": "slt",
}  # fmt: skip
"""Names that clients of other services use, and the nearest voice."""


class TextToSpeech(Speaker):
    """Speaks English."""

    known_options: ClassVar[KnownOptions] = {}

    @classmethod
    def missing(cls) -> str:
        return ffmpeg_missing()

    def load(self) -> None:
        try:
            self.speak("ready", "slt", 1.0, FORMATS["pcm"])
        except subprocess.SubprocessError:
            raise ModelMissing("This ffmpeg cannot speak: it was built without flite.") from None

    def voices(self) -> Mapping[str, str]:
        return {voice: voice for voice in VOICES} | OTHER_VOICES

    def speak(self, text: str, voice: str, speed: float, form: Format) -> bytes:
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore")
        if not any(chr(byte).isalnum() for byte in plain):
            raise BadRequest("input has nothing that can be spoken in English")
        source = ("-f", "lavfi", "-i", f"flite=textfile=content:voice={voice}")
        return sound_file(source, plain + b"\n", speed, form)
