"""Text to speech by Kokoro: a small network that sounds like people. Seven languages.

The model folder holds `onnx/model.onnx` and a file of each voice, as `openpool worker models pull
kokoro-82m` fetches them. The package kokoro-onnx turns text into phonemes (by eSpeak NG) and runs
the network piece by piece.
"""

import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from openpool.worker.runtimes import networks
from openpool.worker.runtimes.base import BadRequest, ModelMissing
from openpool.worker.runtimes.folders import PATH, model_folder
from openpool.worker.runtimes.options import KnownOptions, by_name
from openpool.worker.runtimes.speech import Format, Speaker, ffmpeg_missing, sound_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NETWORK = "onnx/model.onnx"
INPUTS = ("input_ids", "style", "speed")
LANGUAGES = {
    "a": "en-us", "b": "en-gb", "e": "es", "f": "fr-fr", "h": "hi", "i": "it", "p": "pt-br",
}  # fmt: skip
"""The language of a voice, by the first letter of its name. Voices of others (Japanese, Chinese)
are not offered: they were trained on phonemes that eSpeak NG does not make."""
OTHER_VOICES = {
    "alloy": "af_alloy", "ash": "am_michael", "ballad": "bm_fable", "coral": "af_bella",
    "echo": "am_echo", "fable": "bm_fable", "nova": "af_nova", "onyx": "am_onyx",
    "sage": "af_sarah", "shimmer": "af_sky", "verse": "am_puck", "": "af_heart",
}  # fmt: skip
"""Names that clients of other services use, and the nearest voice."""
STYLES = (510, 1, 256)
"""A voice is so many numbers for each length that a piece of text can have."""
SLOWEST, FASTEST = 0.5, 2.0
"""How fast the network itself can speak; the rest is done to the sound."""


class Kokoro(Speaker):
    """Speaks as people do."""

    known_options: ClassVar[KnownOptions] = by_name(PATH, networks.THREADS, networks.DEVICE)

    @classmethod
    def missing(cls) -> str:
        found = importlib.util.find_spec("kokoro_onnx")
        return ffmpeg_missing() if found else "Kokoro needs: pip install 'openpool[ai,kokoro]'"

    def load(self) -> None:
        import numpy as np

        folder = model_folder(self.options, self.cache, self.model, NETWORK)
        self._styles = read_styles(folder / "voices")
        self._voices = voices_of(set(self._styles))
        try:
            from kokoro_onnx import Kokoro as Engine
        except ImportError:
            raise ModelMissing(self.missing()) from None
        session = networks.open_file(folder / NETWORK, self.options, INPUTS)
        with tempfile.NamedTemporaryFile(suffix=".npy") as none:
            # the engine opens a file of voices, but takes each with its text as well
            np.save(none, np.zeros(0))
            none.flush()
            self._engine = Engine.from_session(session, none.name)

    def voices(self) -> Mapping[str, str]:
        return self._voices

    def speak(self, text: str, voice: str, speed: float, form: Format) -> bytes:
        import numpy as np

        pace, language = min(max(speed, SLOWEST), FASTEST), LANGUAGES[voice[0]]
        try:
            samples, rate = self._engine.create(text, self._styles[voice], pace, language)
        except ValueError:
            raise BadRequest("input has nothing that can be spoken by this voice") from None
        source = ("-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "content")
        return sound_file(source, samples.astype(np.float32).tobytes(), speed / pace, form)


def voices_of(here: set[str]) -> dict[str, str]:
    """The voice for each name that a client may use, of those that are here."""
    first = OTHER_VOICES[""] if OTHER_VOICES[""] in here else min(here)
    others = {name: voice if voice in here else first for name, voice in OTHER_VOICES.items()}
    return others | {voice: voice for voice in here}


def read_styles(folder: Path) -> "Mapping[str, NDArray[np.float32]]":
    """The voices of the folder whose language can be spoken. Raises ModelMissing."""
    import numpy as np

    files = {file.stem: file for file in sorted(folder.glob("*.bin")) if file.stem[0] in LANGUAGES}
    if not files:
        raise ModelMissing(f"{folder} has no voices: fetch the model again")
    try:
        return {name: np.fromfile(file, "<f4").reshape(STYLES) for name, file in files.items()}
    except (OSError, ValueError):
        raise ModelMissing(f"a voice in {folder} cannot be read: fetch the model again") from None
