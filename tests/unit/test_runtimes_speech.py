"""Speech to text and text to speech, with the real engines and without any download."""

import io
import json
import resource
from pathlib import Path

import av
import numpy as np
import pytest
from tiny_whisper import LANGUAGES, make_tiny_whisper

from openpool.core.call_requests import Transcript
from openpool.core.calls import App
from openpool.pool.answers.sound import check_speech
from openpool.pool.findings import Weight
from openpool.worker.runtimes.audio import RATE, samples_of
from openpool.worker.runtimes.base import BadRequest, ModelMissing, RuntimeAnswer, RuntimeRequest
from openpool.worker.runtimes.speech import FORMATS, speakable
from openpool.worker.runtimes.speech_to_text import SPHINX, SpeechToText, clock, speech
from openpool.worker.runtimes.text_to_speech import TextToSpeech

SENTENCE = "the quick brown fox jumps over the lazy dog"
PATH = "/v1/audio/transcriptions"
LIST_OF_FILES = b"ffconcat version 1.0\nfile private.wav\n"
LIST_OF_STREAMS = b"#EXTM3U\n#EXTINF:1,\nprivate.wav\n#EXT-X-ENDLIST\n"
SESSION_OF_PORTS = b"v=0\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"


@pytest.fixture(scope="module")
def speaker() -> TextToSpeech:
    runtime = TextToSpeech("flite", {}, Path())
    runtime.load()
    return runtime


@pytest.fixture(scope="module")
def listener() -> SpeechToText:
    runtime = SpeechToText(SPHINX, {"minutes_max": "1"}, Path())
    runtime.load()
    return runtime


@pytest.fixture(scope="module")
def spoken(speaker: TextToSpeech) -> bytes:
    """The sentence as a WAV file."""
    return body(say(speaker, input=SENTENCE, response_format="wav"))


def body(answer: RuntimeAnswer) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


def say(speaker: TextToSpeech, **fields: object) -> RuntimeAnswer:
    asked = json.dumps({"model": "flite", "voice": "alloy", **fields}).encode()
    return speaker.answer(
        RuntimeRequest(path="/v1/audio/speech", content_type="application/json", body=asked)
    )


def hear(listener: SpeechToText, sound: bytes, path: str = PATH, **values: str) -> RuntimeAnswer:
    boundary = "edge"
    parts = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in values.items()
    )
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    content = parts.encode() + head.encode() + sound + f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/form-data; boundary={boundary}"
    return listener.answer(RuntimeRequest(path=path, content_type=kind, body=content))


def test_what_is_spoken_is_understood(listener: SpeechToText, spoken: bytes) -> None:
    """A sentence goes from text to sound and back without losing a word."""
    answer = json.loads(body(hear(listener, spoken, model="whisper-1", language="en")))
    assert answer["text"] == SENTENCE
    assert answer["usage"]["seconds"] == pytest.approx(2.96, abs=0.1)


def test_pauses_divide_the_text(listener: SpeechToText, spoken: bytes) -> None:
    """Two sentences with silence around them are two segments with the right times."""
    sentence = samples_of(spoken, 60)
    pause = np.zeros(2 * RATE, np.int16)
    heard = speech(np.concatenate([pause, sentence, pause, sentence, pause]))
    starts = [start for start, _, _ in heard]
    assert starts == [pytest.approx(2, abs=0.4), pytest.approx(7, abs=0.4)]


def test_what_was_heard_before_changes_nothing(
    speaker: TextToSpeech, listener: SpeechToText, spoken: bytes
) -> None:
    """The same sound gives the same words first, again, and after another voice."""
    robot = body(say(speaker, input=SENTENCE, voice="kal", response_format="wav"))
    fresh = SpeechToText(SPHINX, {}, Path())
    fresh.load()
    first = body(hear(fresh, robot))
    assert body(hear(fresh, robot)) == first
    hear(listener, spoken)
    assert body(hear(listener, robot)) == first


def test_silence_has_no_words(listener: SpeechToText) -> None:
    """Nobody speaks, nothing is written."""
    assert json.loads(body(hear(listener, wav(np.zeros(3 * RATE, np.int16)))))["text"] == ""


def wav(samples: "np.ndarray[tuple[int], np.dtype[np.int16]]") -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("text", SENTENCE + "\n"),
        ("srt", "1\n00:00:00,"),
        ("vtt", "WEBVTT\n\n00:00:00."),
        ("verbose_json", '{"task":"transcribe"'),
    ],
)
def test_answers_come_in_the_formats_of_openai(
    listener: SpeechToText, spoken: bytes, form: str, expected: str
) -> None:
    """Each format begins as its readers expect."""
    assert body(hear(listener, spoken, response_format=form)).decode().startswith(expected)


def test_livepeers_own_route(listener: SpeechToText, spoken: bytes) -> None:
    """Livepeer's form of an answer has chunks with times."""
    answer = json.loads(body(hear(listener, spoken, "/audio-to-text")))
    assert answer["text"] == SENTENCE
    assert answer["chunks"][0]["text"] == SENTENCE
    assert answer["chunks"][0]["timestamp"][1] > 2


@pytest.mark.parametrize(
    ("sound", "values", "words"),
    [
        (b"this is no sound", {}, "no sound"),
        (b"", {}, "empty"),
        (b"RIFF" + bytes(200), {}, "no sound"),
        (None, {"response_format": "xml"}, "response_format"),
        (None, {"language": "de"}, "English"),
    ],
)
def test_bad_sound_is_refused(
    listener: SpeechToText,
    spoken: bytes,
    sound: bytes | None,
    values: dict[str, str],
    words: str,
) -> None:
    """What cannot be heard or answered gets one sentence."""
    with pytest.raises(BadRequest, match=words):
        hear(listener, spoken if sound is None else sound, **values)


def test_a_form_without_a_file_is_refused(listener: SpeechToText) -> None:
    """Garbage JSON and forms that lack the file are the client's mistake."""
    for content in (b"{", b"{}", b'{"file": "https://example.org/a.wav"}'):
        asked = RuntimeRequest(path=PATH, content_type="application/json", body=content)
        with pytest.raises(BadRequest):
            listener.answer(asked)


def test_a_sound_bomb_is_refused(listener: SpeechToText) -> None:
    """A small file that plays for longer than allowed is refused while it is decoded."""
    bomb = io.BytesIO()
    with av.open(bomb, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        for _ in range(70):
            silence = np.zeros((1, RATE), np.int16)
            frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
            frame.rate = RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(bomb.getvalue()) < 100_000
    with pytest.raises(BadRequest, match="longer than 1 minutes"):
        hear(listener, bomb.getvalue())


def test_sound_of_one_sample_a_second_is_not_blown_up(listener: SpeechToText) -> None:
    """A hundred kilobytes that would become gigabytes at our rate are refused before they do."""
    bomb = io.BytesIO()
    with av.open(bomb, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=1, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 20_000), np.int16), format="s16", layout="mono"
        )
        frame.rate = 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadRequest, match="longer than 1 minutes"):
        hear(listener, bomb.getvalue())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB


def test_a_format_that_is_unknown_is_refused_before_anybody_listens(
    listener: SpeechToText,
) -> None:
    """Also where the sound could not be read."""
    with pytest.raises(BadRequest, match="response_format"):
        hear(listener, b"no sound", response_format="exe")


@pytest.mark.parametrize("listing", [LIST_OF_FILES, LIST_OF_STREAMS, SESSION_OF_PORTS])
def test_a_list_of_sounds_opens_none_of_them(
    listener: SpeechToText,
    spoken: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    listing: bytes,
) -> None:
    """FFmpeg knows lists that name files, servers and ports: a stranger's must not be followed."""
    (tmp_path / "private.wav").write_bytes(spoken)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRequest, match="no sound"):
        hear(listener, listing)


@pytest.mark.parametrize(
    "form", ["wav", "mp3", "flac", "ogg", "mp4", "webm", "mpegts", "aiff", "avi"]
)
def test_sound_comes_in_every_container(form: str) -> None:
    """What people record with is opened."""
    out = io.BytesIO()
    codec = {"webm": "libopus", "ogg": "libopus"}.get(form)
    with av.open(out, "w", format=form) as container:
        name = codec or container.default_audio_codec
        stream = container.add_stream(name, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 48_000), np.int16), format="s16", layout="mono"
        )
        frame.rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(samples_of(out.getvalue(), 10)) == pytest.approx(RATE, rel=0.1)


def test_a_missing_whisper_model_is_one_sentence(tmp_path: Path) -> None:
    """The owner of an offline worker reads what is missing, and what to do."""
    runtime = SpeechToText("faster-whisper-small", {}, tmp_path)
    with pytest.raises(ModelMissing, match="openpool worker models pull"):
        runtime.load()


def test_a_whisper_model_in_the_cache_is_used(spoken: bytes, tmp_path: Path) -> None:
    """A model of Whisper's make, in the folder of its name, listens; this one knows no words."""
    make_tiny_whisper(tmp_path / "faster-whisper-none")
    runtime = SpeechToText("faster-whisper-none", {"device": "cpu", "threads": "1"}, tmp_path)
    runtime.load()
    answer = json.loads(body(hear(runtime, spoken, response_format="verbose_json")))
    assert answer["language"] in LANGUAGES
    assert answer["duration"] == pytest.approx(2.96, abs=0.1)
    assert isinstance(answer["text"], str)
    silence = wav(np.zeros(3 * RATE, np.int16))
    assert json.loads(body(hear(runtime, silence)))["text"] == ""


async def test_speech_by_livepeers_own_route(speaker: TextToSpeech) -> None:
    """Its answer stands the pool's check; the voice that the description names speaks."""
    sounds = []
    for description in ("a calm female speaker", "Kal, slowly"):
        asked = json.dumps({"model_id": "x", "text": SENTENCE, "description": description}).encode()
        kind = "application/json"
        answer = speaker.answer(
            RuntimeRequest(path="/text-to-speech", content_type=kind, body=asked)
        )
        said = Transcript(
            app=App("text-to-speech", "flite"), source="live-runner", path="/text-to-speech",
            unit="request", request_type=kind, request=asked, status=200,
            answer_type=answer.content_type, answer=body(answer), whole=True, took_ms=900,
        )  # fmt: skip
        finding = await check_speech(said, weighed)
        assert finding.seen.characters == len(SENTENCE)
        sounds.append(json.loads(body(answer))["audio"]["url"])
    assert sounds[0] != sounds[1]
    with pytest.raises(BadRequest, match="text"):
        speaker.answer(RuntimeRequest(path="/text-to-speech", content_type=kind, body=b"{}"))


async def weighed(data: bytes) -> Weight:
    """The sound, opened here."""
    samples = samples_of(data, 60)
    peak = int(np.abs(samples.astype(int)).max())
    return Weight(audio_ms=len(samples) * 1000 // RATE, peak=peak)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_speech_comes_in_every_format(speaker: TextToSpeech, form: str) -> None:
    """Each format plays for about as long as the sentence takes."""
    answer = say(speaker, input=SENTENCE, response_format=form)
    assert answer.content_type == FORMATS[form].content_type
    if form == "pcm":
        seconds = len(body(answer)) / 2 / 24_000
    else:
        seconds = len(samples_of(body(answer), 60)) / RATE
    assert seconds == pytest.approx(2.96, abs=0.2)


def test_speed_changes_the_time(speaker: TextToSpeech) -> None:
    """Twice as fast takes half as long."""
    usual = len(body(say(speaker, input=SENTENCE, response_format="pcm")))
    fast = len(body(say(speaker, input=SENTENCE, response_format="pcm", speed=2)))
    assert fast / usual == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input": ""}, "nothing that can be spoken"),
        ({"input": "?!... 日本"}, "nothing that can be spoken"),
        ({"input": "a" * 5000}, "at most 4096"),
        ({"input": "\ufdfa" * 4096}, "has 73728 characters"),
        ({"input": "a", "voice": "../../etc/passwd"}, "voice must be one of"),
        ({"input": "a", "response_format": "exe"}, "response_format"),
        ({"input": "a", "speed": 100}, "speed"),
        ({"input": 5}, "input"),
        ({}, "input"),
    ],
)
def test_bad_speech_requests_are_refused(
    speaker: TextToSpeech, fields: dict[str, object], words: str
) -> None:
    """Empty, endless and strange requests get one sentence."""
    with pytest.raises(BadRequest, match=words):
        say(speaker, **fields)


def test_text_cannot_become_a_command(speaker: TextToSpeech, tmp_path: Path) -> None:
    """Quotes, colons and options of ffmpeg in a text are only spoken."""
    target = tmp_path / "written"
    nasty = f"':voice=kal,[out];amovie={target} -y {target}\\ %n"
    assert len(body(say(speaker, input=nasty, response_format="wav"))) > 10_000
    assert not target.exists()


def test_control_characters_are_left_out() -> None:
    """What is spoken is plain text in one line."""
    assert speakable("caf\u00e9\x00\x1b[31m\n\tau lait") == "caf\u00e9 [31m au lait"


def test_times_of_subtitles() -> None:
    """Hours, minutes, seconds and thousandths."""
    assert clock(3723.4567) == "01:02:03.457"
