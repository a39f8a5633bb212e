"""The file in which a worker's owner lists runtimes: read strictly, explained clearly."""

from pathlib import Path

import pytest

from openpool.cli.worker import _offers
from openpool.core.errors import SetupError
from openpool.worker.offers import WorkerOffers

GOOD = """
cache: models
vram_budget_mb: 20_000
runtimes:
  - runtime: speech-to-text
  - runtime: llm
    model: tiny
    processes: 2
    vram_mb: 6000
    options:
      file: ~/tiny.gguf
      context: 512
  - runtime: http
    pipeline: llm
    model: llama-3.1-8b
    sessions: 32
    options: {url: "http://127.0.0.1:8000", upstream_model: meta/llama}
  - runtime: odd_runtime:Odd
    model: mine
"""


def read(tmp_path: Path, text: str) -> WorkerOffers:
    file = tmp_path / "runtimes.yaml"
    file.write_text(text)
    offers = _offers(file, False)
    assert offers is not None
    return offers


def test_a_good_file_is_understood(tmp_path: Path) -> None:
    """Names, numbers and options arrive; what is left out comes from the catalogue."""
    offers = read(tmp_path, GOOD)
    assert (offers.cache, offers.vram_budget_mb) == (tmp_path / "models", 20_000)
    apps = [f"{each.pipeline}/{each.model}" for each in offers.runtimes]
    assert apps == [
        "speech-to-text/pocketsphinx-en-us", "llm/tiny", "llm/llama-3.1-8b", "test/mine",
    ]  # fmt: skip
    tiny = offers.runtimes[1]
    assert (tiny.processes, tiny.vram_mb) == (2, 6000)
    assert tiny.options == {"file": "~/tiny.gguf", "context": "512"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must have a list `runtimes`"),
        ("runtimes: []", "must have a list `runtimes`"),
        ("runtimes: llm", "must have a list `runtimes`"),
        ("runtimes: [llm]", "runtimes[0] is `llm`"),
        ("runtimes:\n  - model: x", "runtimes[0].runtime is not set"),
        ("runtimes:\n  - runtime: lmm\n    model: x", "did you mean `llm`?"),
        ("runtimes:\n  - runtime: no.such.module:Thing", "cannot be imported"),
        ("runtimes:\n  - runtime: pathlib:Path", "no subclass of"),
        ("runtimes:\n  - runtime: llm", "needs a `model`"),
        ("runtimes:\n  - runtime: llm\n    modle: x", "did you mean `runtimes[0].model`?"),
        (
            "runtimes:\n  - runtime: llm\n    model: x\n    options: {contxt: 5}",
            "runtimes.yaml:2: the runtime llm has no option `contxt`; did you mean `context`?",
        ),
        (
            "runtimes:\n  - runtime: llm\n    model: x\n    options: {context: [5]}",
            "runtimes.yaml:4: the option `context` is a list",
        ),
        ("runtimes:\n  - runtime: llm\n    model: x\n    options: 5", "`options` is text"),
        ("runtimes:\n  - runtime: llm\n    model: x\n    processes: 0", "from 1 to 64"),
        ("runtimes:\n  - {runtime: llm, model: x, pipeline: tts}", "serves the pipeline llm"),
        ("runtimes:\n  - {runtime: llm, model: x}\n  - {runtime: llm, model: x}", "offered twice"),
        ("runtimes:\n  - {runtime: ocr, parallel: 4}", "set `processes`, not `parallel`"),
        (
            "runtimes:\n  - {runtime: http, model: x, pipeline: y, parallel: 4}",
            "takes `sessions` requests at once",
        ),
        ("runtimes:\n  - {runtime: http, model: x}", "needs `pipeline` and `model`"),
        ("runtimes:\n  - {runtime: http, model: x, pipeline: y}", "needs `url`"),
        ("runtimes:\n  - {runtime: llm, model: x}\nworkers: 5", "there is no setting `workers`"),
        ("runtimes:\n  - !!python/object:os.system {}", "not allowed here"),
        ("{", "not YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    """Each mistake gets a sentence with what is wrong, and where or what to do."""
    with pytest.raises(SetupError) as refused:
        read(tmp_path, text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("runtime", "option", "value", "must"),
    [
        ("llm", "threads", "many", "a whole number from 1 to 1024"),
        ("llm", "context", "1e9", "a whole number from 16 to"),
        ("llm", "context", "99999999999", "a whole number from 16 to"),
        ("llm", "gpu_layers", "all", "a whole number from 0 to"),
        ("llm", "reuse_prompts", "yes", "true or false"),
        ("object-detection", "size", "-1", "a whole number from 1 to 4096"),
        ("object-detection", "device", "gpu", "one of cpu, cuda"),
        ("object-detection", "threshold", "high", "a number from 0 to 1"),
        ("object-detection", "normalise", "yes", "one of imagenet, none"),
        ("moderation", "threshold", "nan", "a number from 0 to 1"),
        ("live-video-analysis", "fps_max", "inf", "a number from 0.1 to"),
        ("segmentation", "side_max", "0", "a whole number from 16 to"),
        ("speech-to-text", "compute", "int7", "one of default,"),
        ("speech-to-text", "minutes_max", "", "a number from 0.1 to"),
        ("ocr", "threads", "2.5", "a whole number from 1 to"),
        ("kokoro", "threads", "٣", "a whole number from 1 to"),
        ("sam2", "device", "CUDA", "one of cpu, cuda"),
        ("embeddings", "threads", "0x2", "a whole number from 1 to"),
        ("http", "request_mb", "-5", "a whole number from 1 to"),
        ("http", "idle_s", "nan", "a number from 1 to"),
    ],
)
def test_an_option_with_a_wrong_value_is_one_sentence(
    tmp_path: Path, runtime: str, option: str, value: str, must: str
) -> None:
    """Said when the worker starts, with the line: nothing is offered that could only fail."""
    text = f"runtimes:\n  - runtime: {runtime}\n    model: m\n    options: {{{option}: '{value}'}}"
    if runtime == "http":
        text = text.replace("    model", "    pipeline: p\n    model")
    with pytest.raises(SetupError) as refused:
        read(tmp_path, text)
    (sentence,) = str(refused.value).splitlines()
    assert f"runtimes.yaml:2: the option `{option}` is '{value}'; it must be {must}" in sentence


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    """A person fixes a file once."""
    with pytest.raises(SetupError) as refused:
        read(tmp_path, "runtimes:\n  - runtime: lmm\n  - runtime: llm\n  - runtime: oc")
    assert [line.partition(": ")[0][-2:] for line in str(refused.value).splitlines()] == [
        ":2",
        ":3",
        ":4",
    ]


def test_a_worker_without_anything_to_do_is_refused() -> None:
    """Neither transcoding nor runtimes is a mistake of the command line."""
    with pytest.raises(SetupError, match="--runtimes"):
        _offers(None, True)


def test_what_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime whose library or command is missing says how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="apt-get install ffmpeg"):
        read(tmp_path, "runtimes:\n  - runtime: text-to-speech")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def broken(:", "cannot be imported: SyntaxError"),
        ("raise RuntimeError('no card')", "cannot be imported: RuntimeError: no card"),
        ("class Mine: pass", "is no subclass of"),
        ("class Mine(Runtime): paths = ('/v1/mine',)", "must say its `pipeline`"),
        ("class Mine(Runtime): pipeline = 'mine'", "must say its `paths`"),
        ("class Mine(Runtime): pipeline, paths = 'mine', '/v1/mine'", "must say its `paths`"),
        ("class Mine(Runtime): pipeline, paths = 'mine', ('v1',)", "must say its `paths`"),
    ],
)
def test_a_mistake_in_a_class_of_ones_own_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    """Whoever writes their first runtime reads what is wrong with it, not our trace."""
    name = f"mine_{len(source)}"
    head = "from openpool.worker.runtimes.base import Runtime\n"
    (tmp_path / f"{name}.py").write_text(head + source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SetupError) as error:
        read(tmp_path, f"runtimes: [{{runtime: '{name}:Mine', model: m}}]")
    assert words in str(error.value)
    assert "runtimes.yaml:1: " in str(error.value)
