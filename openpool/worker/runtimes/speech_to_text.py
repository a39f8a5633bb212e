"""Speech to text: PocketSphinx, whose English model comes with it, or Whisper from a model folder.

A Whisper model is a folder in CTranslate2's format, in the cache under the model's name
(`openpool worker models pull`) or where the option `path` says. Nothing is downloaded here.
"""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
from msgspec import Struct

from openpool.core.errors import BadMessage
from openpool.wire.forms import Form, read_form
from openpool.worker.runtimes.audio import RATE, samples_of
from openpool.worker.runtimes.base import (
    BadRequest,
    ModelMissing,
    Runtime,
    RuntimeAnswer,
    RuntimeRequest,
)
from openpool.worker.runtimes.folders import PATH, model_folder
from openpool.worker.runtimes.options import KnownOptions, by_name, choice, number, whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPHINX = "pocketsphinx-en-us"
DEVICE = choice("device", "what Whisper computes on", "auto", "cpu", "cuda")
COMPUTE = choice(
    "compute", "number format of Whisper",
    "default", "auto", "int8", "int8_float16", "int8_bfloat16", "int8_float32", "int16",
    "float16", "bfloat16", "float32",
)  # fmt: skip
THREADS = whole("threads", "cores that Whisper may use on a CPU; 0 takes all", 0, 1024, 0)
MINUTES_MAX = number("minutes_max", "the longest sound (30)", 0.1, 600, 30)
PADDING_S = 0.3


class Segment(Struct, frozen=True):
    """A stretch of speech; times in seconds."""

    start: float
    end: float
    text: str


class Heard(Struct, frozen=True):
    """What was said."""

    language: str
    segments: list[Segment]

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(segment.text for segment in self.segments).strip()


Writer = Callable[[Heard, float], RuntimeAnswer]
"""Writes what was said in so many seconds as an answer."""


class Ear(ABC):
    """One engine with its model."""

    @abstractmethod
    def listen(self, samples: "NDArray[np.int16]", language: str) -> Heard:
        """What is said in these samples. `language` is a code like `en`, or empty."""


class SpeechToText(Runtime):
    """Writes down what is said in a file of any format that FFmpeg reads."""

    pipeline: ClassVar[str] = "speech-to-text"
    paths: ClassVar[tuple[str, ...]] = ("/v1/audio/transcriptions", "/audio-to-text")
    known_options: ClassVar[KnownOptions] = by_name(PATH, DEVICE, COMPUTE, THREADS, MINUTES_MAX)

    @classmethod
    def missing(cls) -> str:
        found = importlib.util.find_spec("pocketsphinx")
        return "" if found else "speech to text needs: pip install 'openpool[ai]'"

    def load(self) -> None:
        self._seconds_max = 60 * MINUTES_MAX.of(self.options)
        self._ear: Ear
        if self.model == SPHINX and "path" not in self.options:
            self._ear = _Sphinx()
        else:
            folder = model_folder(self.options, self.cache, self.model, "model.bin")
            self._ear = _Whisper(folder, self.options)

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        form = _form(request)
        write = _writer(request.path, form)
        samples = samples_of(_file(form), self._seconds_max)
        heard = self._ear.listen(samples, form.values.get("language", "")[:8])
        return write(heard, len(samples) / RATE)


class _Sphinx(Ear):
    """English only, and better with clear speech; needs no download."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder  # type: ignore[import-untyped]  # compiled

        self._decoder = Decoder(samprate=RATE, loglevel="FATAL")

    def listen(self, samples: "NDArray[np.int16]", language: str) -> Heard:
        if language not in ("", "en", "english"):
            raise BadRequest(f"{SPHINX} understands English only")
        self._decoder.reinit_feat()  # else it goes on with the means of what it heard before
        segments = [
            Segment(start, end, text)
            for start, end, sound in speech(samples)
            if (text := self._words(sound))
        ]
        return Heard("en", segments)

    def _words(self, sound: bytes) -> str:
        self._decoder.start_utt()
        self._decoder.process_raw(sound, full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""


def speech(samples: "NDArray[np.int16]") -> list[tuple[float, float, bytes]]:
    """Where somebody speaks, from and to which second, and the sound with a little around it."""
    from pocketsphinx import Endpointer

    pointer = Endpointer(sample_rate=RATE, vad_mode=1)
    sound = samples.tobytes()
    size = pointer.frame_bytes
    spoken: list[tuple[float, float]] = []
    for start in range(0, len(sound), size):
        frame = sound[start : start + size]
        heard = pointer.process(frame) if len(frame) == size else pointer.end_stream(frame)
        if heard is not None and not pointer.in_speech:
            spoken.append((pointer.speech_start, pointer.speech_end))
    if pointer.in_speech:
        spoken.append((pointer.speech_start, len(samples) / RATE))
    return [(round(a, 3), round(b, 3), _around(samples, a, b)) for a, b in spoken]


def _around(samples: "NDArray[np.int16]", start: float, end: float) -> bytes:
    """The detector cuts into the first and last sound of a stretch."""
    first, last = max(0, int((start - PADDING_S) * RATE)), int((end + PADDING_S) * RATE)
    return samples[first:last].tobytes()


class _Whisper(Ear):
    """Any language, by faster-whisper."""

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        try:
            from faster_whisper import WhisperModel  # type: ignore[import-untyped]
        except ImportError:
            raise ModelMissing("Whisper needs: pip install 'openpool[ai]'") from None
        self._model = WhisperModel(
            str(folder),
            device=DEVICE.of(options),
            compute_type=COMPUTE.of(options),
            cpu_threads=THREADS.of(options),
            local_files_only=True,
        )

    def listen(self, samples: "NDArray[np.int16]", language: str) -> Heard:
        import numpy as np

        sound = samples.astype(np.float32) / 32768
        try:
            segments, info = self._model.transcribe(
                sound, language=language or None, vad_filter=True
            )
        except ValueError as error:
            raise BadRequest(str(error)) from None
        heard = [Segment(round(s.start, 3), round(s.end, 3), s.text.strip()) for s in segments]
        return Heard(info.language, heard)


# --- answers ------------------------------------------------------------------------------------


def _form(request: RuntimeRequest) -> Form:
    try:
        return read_form(request.content_type, request.body, "file")
    except BadMessage as fault:
        raise BadRequest(str(fault)) from None


def _file(form: Form) -> bytes:
    try:
        data = form.file("file", "audio")
    except BadMessage as fault:
        raise BadRequest(str(fault)) from None
    if not data:
        raise BadRequest("the file is empty")
    return data


def _writer(path: str, form: Form) -> Writer:
    """How the answer is to be written: known before anybody listens for minutes."""
    if path == "/audio-to-text":
        return _livepeer
    name = form.values.get("response_format", "json")
    if name not in FORMATS:
        raise BadRequest(f"response_format must be one of {', '.join(FORMATS)}, not {name[:40]!r}")
    return FORMATS[name]


def _json(body: object) -> RuntimeAnswer:
    return RuntimeAnswer(body=msgspec.json.encode(body))


def _verbose(heard: Heard, seconds: float) -> RuntimeAnswer:
    return _json(
        {
            "task": "transcribe",
            "language": heard.language,
            "duration": round(seconds, 3),
            "text": heard.text,
            "segments": [
                {"id": i, "start": each.start, "end": each.end, "text": each.text}
                for i, each in enumerate(heard.segments)
            ],
        }
    )


def _short(heard: Heard, seconds: float) -> RuntimeAnswer:
    usage = {"type": "duration", "seconds": round(seconds, 3)}
    return _json({"text": heard.text, "usage": usage})


def _plain(text: str, kind: str = "text/plain") -> RuntimeAnswer:
    return RuntimeAnswer(content_type=f"{kind}; charset=utf-8", body=text.encode())


def _srt(heard: Heard, seconds: float) -> RuntimeAnswer:
    parts = [
        f"{i}\n{clock(each.start, ',')} --> {clock(each.end, ',')}\n{each.text}\n"
        for i, each in enumerate(heard.segments, 1)
    ]
    return _plain("\n".join(parts), "application/x-subrip")


def _vtt(heard: Heard, seconds: float) -> RuntimeAnswer:
    parts = [f"{clock(s.start)} --> {clock(s.end)}\n{s.text}\n" for s in heard.segments]
    return _plain("\n".join(["WEBVTT\n", *parts]), "text/vtt")


def _livepeer(heard: Heard, seconds: float) -> RuntimeAnswer:
    chunks = [{"timestamp": [each.start, each.end], "text": each.text} for each in heard.segments]
    return _json({"text": heard.text, "chunks": chunks})


def clock(seconds: float, point: str = ".") -> str:
    """A time of subtitles: `00:01:02.345`."""
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


FORMATS: dict[str, Writer] = {
    "json": _short,
    "text": lambda heard, seconds: _plain(heard.text + "\n"),
    "verbose_json": _verbose,
    "srt": _srt,
    "vtt": _vtt,
}
"""How an answer may be written."""
