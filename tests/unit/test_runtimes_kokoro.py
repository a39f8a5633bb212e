"""Kokoro's runtime with a made-up network, whose sound tells what the real one would be fed."""

import json
from pathlib import Path

import pytest
from kokoro_onnx.config import DEFAULT_VOCAB
from tiny_kokoro import RATE, SAMPLES, make_tiny_kokoro, spoken

from openpool.worker.runtimes.audio import samples_of
from openpool.worker.runtimes.base import BadRequest, ModelMissing, RuntimeAnswer, RuntimeRequest
from openpool.worker.runtimes.kokoro import Kokoro
from openpool.worker.runtimes.speech import FORMATS

MODEL = "kokoro-82m"
LETTERS = {number: letter for letter, number in DEFAULT_VOCAB.items()}
LOUDNESS = {"af_heart": 1.0, "bf_emma": 0.5, "ff_siwis": 0.75, "jf_alpha": 0.25}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    make_tiny_kokoro(folder / MODEL, **LOUDNESS)
    return folder


@pytest.fixture(scope="module")
def speaker(cache: Path) -> Kokoro:
    runtime = Kokoro(MODEL, {}, cache)
    runtime.load()
    return runtime


def say(speaker: Kokoro, text: str, **fields: object) -> RuntimeAnswer:
    asked = json.dumps({"model": MODEL, "input": text, "response_format": "pcm", **fields}).encode()
    return speaker.answer(
        RuntimeRequest(path="/v1/audio/speech", content_type="application/json", body=asked)
    )


def phonemes(answer: RuntimeAnswer, loudness: float = 1.0, speed: float = 1.0) -> str:
    """What the network was given, read from the sound; silence around it is left out."""
    assert isinstance(answer.body, bytes)
    numbers = spoken(answer.body, loudness, speed)
    return "".join(LETTERS[number] for number in numbers if number)


def test_a_text_becomes_its_phonemes(speaker: Kokoro) -> None:
    """Stress, punctuation and numbers arrive at the network, in the model's own alphabet."""
    heard = phonemes(say(speaker, "Hello Open Pool, 42 workers!"))
    assert heard == "həlˈoʊ ˈoʊpən pˈuːl, fˈɔːɹɾi tˈuː wˈɜːkɚz!"


@pytest.mark.parametrize(
    ("voice", "text", "heard"),
    [
        ("bf_emma", "tomato", "təmˈɑːtəʊ"),
        ("", "tomato", "təmˈeɪɾoʊ"),
        ("alloy", "tomato", "təmˈeɪɾoʊ"),
        ("ff_siwis", "le monde entier", "lə mˈɔ̃d ɑ̃tjˈe"),
    ],
)
def test_a_voice_has_its_language(speaker: Kokoro, voice: str, text: str, heard: str) -> None:
    """British, American and French; names of OpenAI's voices are known."""
    loudness = LOUDNESS.get(voice, LOUDNESS["af_heart"])
    assert phonemes(say(speaker, text, voice=voice), loudness) == heard


def test_voices_that_cannot_be_spoken_are_not_offered(speaker: Kokoro) -> None:
    """Japanese is left out, and a client hears which voices there are."""
    assert set(speaker.voices().values()) == {"af_heart", "bf_emma", "ff_siwis"}
    with pytest.raises(BadRequest, match="one of af_heart, bf_emma, ff_siwis, not 'jf_alpha'"):
        say(speaker, "hello", voice="jf_alpha")


@pytest.mark.parametrize(("speed", "pace"), [(0.5, 0.5), (2, 2), (0.25, 0.5), (4, 2)])
def test_speed_is_the_networks_and_then_the_sounds(
    speaker: Kokoro, speed: float, pace: float
) -> None:
    """From half to twice as fast it speaks so itself; beyond that the sound is stretched."""
    text = "Whoever speaks slowly is understood by more people."
    usual, changed = say(speaker, text), say(speaker, text, speed=speed)
    assert isinstance(usual.body, bytes)
    assert isinstance(changed.body, bytes)
    assert len(changed.body) / len(usual.body) == pytest.approx(1 / speed, rel=0.12)
    if speed == pace:
        assert phonemes(changed, speed=speed) == phonemes(usual)


def test_a_long_text_is_spoken_whole(speaker: Kokoro) -> None:
    """More than the network takes at once is spoken piece by piece, and no word is lost."""
    words = "one two three four five six seven eight nine ten " * 40
    heard = say(speaker, words)
    once = phonemes(say(speaker, words[:49]))
    assert phonemes(heard).replace(" ", "") == once.replace(" ", "") * 40
    assert isinstance(heard.body, bytes)
    assert len(heard.body) > 2 * SAMPLES * 510


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_speech_comes_in_every_format(speaker: Kokoro, form: str) -> None:
    """Each plays for as long as its tokens take."""
    answer = say(speaker, "hello there", response_format=form)
    assert isinstance(answer.body, bytes)
    assert answer.content_type == FORMATS[form].content_type
    usual = say(speaker, "hello there")
    assert isinstance(usual.body, bytes)
    expected = len(usual.body) / 2 / RATE
    if form != "pcm":
        assert len(samples_of(answer.body, 60)) / 16_000 == pytest.approx(expected, abs=0.15)


def test_livepeers_route_speaks_too(speaker: Kokoro) -> None:
    """WAV inside JSON, by the voice that the description names."""
    asked = b'{"text": "hello", "description": "BF_Emma, please"}'
    request = RuntimeRequest(path="/text-to-speech", content_type="application/json", body=asked)
    answer = speaker.answer(request)
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body)["audio"]["url"].startswith("data:audio/wav;base64,")


@pytest.mark.parametrize("text", ["", "  \n", "?!...", "\u200b"])
def test_nothing_to_say_is_one_sentence(speaker: Kokoro, text: str) -> None:
    """Nobody is charged for silence."""
    with pytest.raises(BadRequest, match="nothing that can be spoken"):
        say(speaker, text)


@pytest.mark.parametrize(
    "text",
    ["日本語のテキスト", "☃ 🎉 a", "<speak>&amp;</speak>", "a" * 4096, "1" * 4096, "\ud7ff a"],
)
def test_strange_texts_do_no_harm(speaker: Kokoro, text: str) -> None:
    """Whatever a stranger sends is spoken or refused."""
    try:
        answer = say(speaker, text)
    except BadRequest:
        return
    assert len(answer.body) > SAMPLES  # type: ignore[arg-type]


def test_what_is_missing_is_one_sentence(tmp_path: Path) -> None:
    """No model, a model without voices, a voice that is cut off, a network of another kind."""
    with pytest.raises(ModelMissing, match="models pull"):
        Kokoro(MODEL, {}, tmp_path).load()
    make_tiny_kokoro(tmp_path / MODEL)
    with pytest.raises(ModelMissing, match="has no voices"):
        Kokoro(MODEL, {}, tmp_path).load()
    voice = tmp_path / MODEL / "voices" / "af_heart.bin"
    voice.write_bytes(bytes(1000))
    with pytest.raises(ModelMissing, match="cannot be read"):
        Kokoro(MODEL, {}, tmp_path).load()
    voice.write_bytes(bytes(510 * 1024))
    (tmp_path / MODEL / "onnx" / "model.onnx").write_bytes(b"no network")
    with pytest.raises(ModelMissing, match="cannot be loaded"):
        Kokoro(MODEL, {}, tmp_path).load()
