"""The runtimes that come with Open Pool, and how those of others are found.

Names lead to classes, which are imported only when asked for. To add one, see
docs/how-to/add-a-runtime.md.
"""

import difflib
import importlib

from msgspec import Struct

from openpool.core.errors import SetupError
from openpool.worker.runtimes.base import Runtime

HTTP = "http"
"""The runtime that is a server elsewhere (`runtimes.http`), and so has no class."""
_HERE = "openpool.worker.runtimes."


class Entry(Struct, frozen=True):
    """A runtime that one can name in the file."""

    place: str
    """`module:Class`."""
    model: str
    """What is offered where the file names no model; empty: it must name one."""
    meaning: str


CATALOGUE = {
    "speech-to-text": Entry(
        _HERE + "speech_to_text:SpeechToText",
        "pocketsphinx-en-us",
        "English speech to text by PocketSphinx; any language with a Whisper model",
    ),
    "text-to-speech": Entry(
        _HERE + "text_to_speech:TextToSpeech", "flite", "English speech by flite, through FFmpeg"
    ),
    "kokoro": Entry(
        _HERE + "kokoro:Kokoro", "kokoro-82m", "Speech that sounds like people, by Kokoro"
    ),
    "llm": Entry(_HERE + "llm:Llm", "", "A language model in a GGUF file, by llama.cpp"),
    "embeddings": Entry(
        _HERE + "embeddings:Embeddings", "all-minilm-l6-v2", "Sentence vectors by a BERT model"
    ),
    "ocr": Entry(_HERE + "ocr:Ocr", "rapidocr", "The text in a picture, by RapidOCR"),
    "segmentation": Entry(
        _HERE + "segmentation:Segmentation", "grabcut", "What a point or box means, by GrabCut"
    ),
    "sam2": Entry(_HERE + "sam2:Sam2", "sam2.1-hiera-small", "What a point or box means, by SAM 2"),
    "object-detection": Entry(
        _HERE + "object_detection:ObjectDetection", "", "Objects in a picture, by an ONNX model"
    ),
    "moderation": Entry(
        _HERE + "moderation:Moderation", "profanity", "How offensive a text or a picture is"
    ),
    "live-video-analysis": Entry(
        _HERE + "live_video:LiveVideo", "", "Objects in a live stream, by an ONNX model"
    ),
}


def names() -> list[str]:
    """All names that the file may use."""
    return [*CATALOGUE, HTTP]


def default_model(name: str) -> str:
    """What is offered where the file names no model; empty if it must."""
    return CATALOGUE[name].model if name in CATALOGUE else ""


def runtime_class(name: str) -> type[Runtime]:
    """The class of a catalogue's name, or of `module:Class`. Raises SetupError."""
    if name not in CATALOGUE and ":" not in name:
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(names())}"
        raise SetupError(f"there is no runtime `{name}`; {hint}")
    place = CATALOGUE[name].place if name in CATALOGUE else name
    module, _, attribute = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the module is its owner's, and may not even be Python
        why = f"{type(error).__name__}: {error}"
        raise SetupError(f"the runtime `{name}` cannot be imported: {why}") from None
    if not (isinstance(found, type) and issubclass(found, Runtime)):
        raise SetupError(f"the runtime `{name}` is no subclass of {_HERE}base.Runtime")
    if not isinstance(getattr(found, "pipeline", None), str):
        raise SetupError(f"the runtime `{name}` must say its `pipeline`, a text")
    paths = getattr(found, "paths", None)
    if not (isinstance(paths, tuple) and all(str(path).startswith("/") for path in paths)):
        raise SetupError(f"the runtime `{name}` must say its `paths`, a tuple like ('/v1/mine',)")
    return found
