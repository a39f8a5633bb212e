"""The language model runtime with a real GGUF file, made here in a moment."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPException
from pathlib import Path

import pytest

from openpool.demo.tiny_llm import make_tiny_llm
from openpool.worker.runtimes.base import BadRequest, ModelMissing, RuntimeRequest
from openpool.worker.runtimes.llm import Llm


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Llm:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    make_tiny_llm(path)
    runtime = Llm("tiny", {"file": str(path), "context": "256", "threads": "1"}, path.parent)
    runtime.load()
    return runtime


def asked(**fields: object) -> RuntimeRequest:
    content: dict[str, object] = {"messages": [{"role": "user", "content": "hello"}], **fields}
    return RuntimeRequest(
        path="/v1/chat/completions",
        content_type="application/json",
        body=json.dumps(content).encode(),
    )


def whole(llm: Llm, **fields: object) -> dict[str, object]:
    answer = llm.answer(asked(**fields)).body
    assert isinstance(answer, bytes)
    found: dict[str, object] = json.loads(answer)
    return found


def events(llm: Llm, **fields: object) -> list[str]:
    answer = llm.answer(asked(stream=True, **fields))
    assert answer.content_type == "text/event-stream"
    assert not isinstance(answer.body, bytes)
    text = b"".join(answer.body).decode()
    assert text.endswith("\n\n")
    return [event.removeprefix("data: ") for event in text[:-2].split("\n\n")]


def test_a_completion_has_text_and_usage(llm: Llm) -> None:
    """The answer is printable, as long as asked for, and counted."""
    answer = whole(llm, max_tokens=40, temperature=0)
    (choice,) = answer["choices"]  # type: ignore[misc]
    text = choice["message"]["content"]
    assert (len(text), text.isprintable()) == (40, True)
    assert answer["model"] == "tiny"
    usage = answer["usage"]
    assert isinstance(usage, dict)
    # every character of "hello" and the line's end is a token, and one begins the text
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (7, 40)


def test_the_same_seed_gives_the_same_text(llm: Llm) -> None:
    """Whoever checks a worker's answer can have it computed again."""
    one = whole(llm, max_tokens=40, seed=7, temperature=1)["choices"]
    two = whole(llm, max_tokens=40, seed=7, temperature=1)["choices"]
    assert one == two


def test_a_stream_says_what_the_whole_answer_says(llm: Llm) -> None:
    """The pieces joined are the answer; usage comes last if asked for; then the end is marked."""
    text = whole(llm, max_tokens=30, temperature=0)["choices"][0]["message"]["content"]  # type: ignore[index]
    said = events(llm, max_tokens=30, temperature=0, stream_options={"include_usage": True})
    assert said[-1] == "[DONE]"
    parsed = [json.loads(event) for event in said[:-1]]
    pieces = [c["delta"].get("content") or "" for p in parsed for c in p["choices"]]
    assert "".join(pieces) == text
    assert parsed[-1]["usage"]["completion_tokens"] == 30
    assert {p["model"] for p in parsed} == {"tiny"}


def test_a_stream_can_be_left(llm: Llm) -> None:
    """Closing a stream, read or unread, stops the model: the next request is answered."""
    for reads in (0, 1, 3):
        stream = llm.answer(asked(stream=True, temperature=0)).body
        assert isinstance(stream, Iterator)
        for _ in range(reads):
            next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert whole(llm, max_tokens=1)["choices"]


def test_several_are_answered_at_once(tmp_path: Path) -> None:
    """With two places, a request is answered while a stream before it goes on."""
    make_tiny_llm(tmp_path / "tiny.gguf", context=4096)
    options = {"file": str(tmp_path / "tiny.gguf"), "context": "4096", "threads": "1"}
    two = Llm("tiny", options, tmp_path)
    two.parallel = 2
    two.load()
    alone = whole(two, max_tokens=20, temperature=0)["choices"]
    stream = two.answer(asked(stream=True, temperature=0)).body
    assert isinstance(stream, Iterator)
    next(stream)
    with ThreadPoolExecutor() as threads:
        beside = threads.submit(whole, two, max_tokens=20, temperature=0)
        assert any(beside.done() and event != b"data: [DONE]\n\n" for event in stream)
    assert beside.result()["choices"] == alone
    stream.close()  # type: ignore[attr-defined]
    # each has the whole context to itself
    assert whole(two, temperature=0)["usage"]["total_tokens"] > 2048  # type: ignore[index]


def test_whoever_leaves_stops_the_model(llm: Llm) -> None:
    """A request that nobody waits for any more ends at once, in mid-answer."""
    request = asked(max_tokens=200)
    request.hangup.happen()
    with pytest.raises((OSError, HTTPException)):
        llm.answer(request)
    assert whole(llm, max_tokens=1)["choices"]


@pytest.mark.parametrize("reuse", ["false", "true"])
def test_nobody_learns_what_others_asked(tmp_path: Path, reuse: str) -> None:
    """The same prompt is read anew each time, unless the worker's owner wants it otherwise."""
    make_tiny_llm(tmp_path / "tiny.gguf")
    options = {"file": str(tmp_path / "tiny.gguf"), "threads": "1", "reuse_prompts": reuse}
    model = Llm("tiny", options, tmp_path)
    model.load()
    cached = [
        whole(model, max_tokens=2)["usage"]["prompt_tokens_details"]["cached_tokens"]  # type: ignore[index]
        for _ in range(2)
    ]
    assert (cached[0], cached[1] > 0) == (0, reuse == "true")


def test_nobody_else_can_ask_the_model(llm: Llm) -> None:
    """The engine's own server refuses whoever lacks the key, and shows nothing of its slots."""
    server = llm._connection()
    with closing(server):
        server.request("POST", "/v1/chat/completions", b"{}")
        assert server.getresponse().status == 401


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_is_refused(llm: Llm, stream: bool) -> None:
    """Also for a stream the refusal comes before anything is sent."""
    long = [{"role": "user", "content": "x" * 1000}]
    with pytest.raises(BadRequest, match="context"):
        llm.answer(asked(messages=long, stream=stream))


def test_an_answer_ends_with_the_context(llm: Llm) -> None:
    """Without a limit of its own, an answer stops where the model's memory ends."""
    answer = whole(llm, temperature=0)
    assert answer["usage"]["total_tokens"] <= 256  # type: ignore[index]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": "hello"},
        {"messages": []},
        {"messages": [5]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url",
                       "image_url": {"url": "file:///etc/passwd"}}]}]},
        {"n": 2},
        {"max_tokens": 0},
        {"max_tokens": "many"},
        {"temperature": "hot"},
        {"tools": [{"a": 1}]},
    ],
)  # fmt: skip
def test_bad_requests_are_refused(llm: Llm, fields: dict[str, object]) -> None:
    """Each is the client's mistake, and the model answers the next one."""
    with pytest.raises(BadRequest):
        llm.answer(asked(**fields))
    assert whole(llm, max_tokens=1)["choices"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 50_000])
def test_garbage_json_is_refused(llm: Llm, content: bytes) -> None:
    """What is no JSON object gets one sentence."""
    request = RuntimeRequest(
        path="/v1/chat/completions", content_type="application/json", body=content
    )
    with pytest.raises(BadRequest, match="no"):
        llm.answer(request)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"messages": [{"role": "user", "content": "the " * 500_000}]}, "takes at most 65536"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias has 1025 entries"),
        ({"stop": [f"{i}" for i in range(17)]}, "stop has 17 entries"),
        ({"top_logprobs": 10**9}, "from 0 to 20"),
        ({"top_logprobs": -1}, "from 0 to 20"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {
            "properties": {f"p{i}": {"type": "string"} for i in range(1500)}}}}}, "at most 32768"),
        ({"tools": [{"type": "function", "function": {"name": "f" * 40_000}}]}, "at most 32768"),
    ],
)  # fmt: skip
def test_what_would_hold_up_others_is_refused_unread(
    llm: Llm, fields: dict[str, object], sentence: str
) -> None:
    """Small requests that cost minutes in the engine, or an answer of gigabytes, are not begun."""
    with pytest.raises(BadRequest, match=sentence):
        llm.answer(asked(**fields))


def test_fields_of_the_engine_are_not_handed_on(llm: Llm) -> None:
    """A client cannot reach what llama.cpp would do beyond OpenAI's request."""
    plain = whole(llm, max_tokens=5, temperature=0)["choices"]
    odd = whole(llm, max_tokens=5, temperature=0, id_slot=99, grammar="root ::= 'x'", lora=[])
    assert odd["choices"] == plain


def test_a_missing_model_is_one_sentence(tmp_path: Path) -> None:
    """Neither a file nor a folder in the cache: the owner reads what to do."""
    with pytest.raises(ModelMissing, match="models pull"):
        Llm("qwen", {}, tmp_path).load()
    with pytest.raises(ModelMissing, match=r"There is no file"):
        Llm("qwen", {"file": str(tmp_path / "x.gguf")}, tmp_path).load()


def test_a_model_in_the_cache_is_found(tmp_path: Path) -> None:
    """What `models pull` left there is loaded by its name."""
    (tmp_path / "mine").mkdir()
    make_tiny_llm(tmp_path / "mine" / "any.gguf")
    runtime = Llm("mine", {"context": "128"}, tmp_path)
    runtime.load()
    assert whole(runtime, max_tokens=1)["model"] == "mine"
