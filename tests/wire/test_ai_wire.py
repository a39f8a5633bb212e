"""The bytes of the AI worker protocol: golden ones, round trips, and what strangers may send."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core.errors import BadMessage, BadResult
from openpool.wire import livepeer_pb2 as pb
from openpool.wire.ai_messages import (
    NUMBERS,
    AiJob,
    AiModel,
    RegisterAi,
    decode_ai_job,
    decode_register_ai,
    encode_ai_job,
    encode_register_ai,
)
from openpool.wire.ai_results import (
    AiResult,
    AiResultParser,
    ResultFile,
    ai_headers,
    build_ai_result,
    files_of,
    read_ai_headers,
)
from openpool.wire.chat_events import ChatEvents
from openpool.wire.forms import File, build_form, read_form
from openpool.wire.messages import BadTask
from openpool.wire.results import BadUpload

MODELS = st.builds(
    AiModel,
    pipeline=st.sampled_from(sorted(NUMBERS)),
    model=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=40),
    capacity=st.integers(1, 1_000_000),
    warm=st.booleans(),
)


def test_a_registration_is_what_an_orchestrator_reads() -> None:
    """Field by field: secret, capacities by number, version, models with warm and capacity."""
    models = (
        AiModel(pipeline="text-to-image", model="a/b", capacity=4),
        AiModel(pipeline="text-to-image", model="c", capacity=2),
        AiModel(pipeline="llm", model="m", capacity=16),
    )
    data = encode_register_ai(RegisterAi(secret="s3cret", models=models))
    # secret=1, capabilities=2 {capacities=3 {27: 6} {33: 16}, version=4, constraints=5 {2: ...}}
    assert data.startswith(bytes.fromhex("0a06733363726574"))
    for part in ("1a04081b1006", "1a0408211010", "22073939392e302e30"):
        assert bytes.fromhex(part) in data
    model = b"\x0a\x03a/b" + b"\x12\x04\x08\x01\x10\x04"
    assert b"\x0a" + bytes([len(model)]) + model in data
    assert b"\x08\x23" not in data


def test_live_video_is_never_written() -> None:
    """Capability 35 kills an orchestrator: there is no way to write it."""
    model = AiModel(pipeline="live-video-to-video", model="noop", capacity=1)
    with pytest.raises(ValueError, match="knows no pipeline"):
        encode_register_ai(RegisterAi(secret="s", models=(model,)))


def test_what_is_no_batch_pipeline_is_left_out() -> None:
    """A stock worker's live video, an unknown number and an empty capacity are not read."""
    message = pb.RegisterAIWorkerRequest(secret="s", ethereum_address=b"\1" * 20)
    for number, capacity in ((35, 1), (99, 1), (33, 0), (31, 2)):
        message.capabilities.constraints.PerCapability[number].models["m"].capacity = capacity
    found = decode_register_ai(message.SerializeToString())
    assert found.models == (AiModel(pipeline="audio-to-text", model="m", capacity=2, warm=False),)


@given(st.lists(MODELS, max_size=8, unique_by=lambda each: (each.pipeline, each.model)))
def test_registrations_come_back(models: list[AiModel]) -> None:
    """Whatever is written is read again."""
    found = decode_register_ai(encode_register_ai(RegisterAi(secret="s", models=tuple(models))))
    assert sorted(found.models, key=repr) == sorted(models, key=repr)


@given(st.binary(max_size=200))
def test_strange_bytes_are_refused_in_words(data: bytes) -> None:
    """Any bytes either are a message or raise BadMessage."""
    for decode in (decode_register_ai, decode_ai_job):
        with suppress(BadMessage):
            decode(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.integers(0, 2**63 - 1), st.dictionaries(st.text(max_size=8), JSON, max_size=5))
def test_jobs_come_back(task_id: int, request: dict[str, object]) -> None:
    """Whatever is written is read again."""
    job = AiJob(task_id=task_id, pipeline="llm", request=request, input_url="https://a/b")
    assert decode_ai_job(encode_ai_job(job)) == job


@pytest.mark.parametrize(
    ("pipeline", "data"),
    [
        ("live-video-to-video", b"{}"),
        ("llm", b"{"),
        ("llm", b'{"request": 3}'),
        ("llm", b'{"input_url": "file:///etc/passwd", "request": {}}'),
        ("llm", b'{"input_url": "https://' + b"a" * 5000 + b'"}'),
        ("llm", b"[" * 5000),
    ],
)
def test_a_bad_job_keeps_its_id(pipeline: str, data: bytes) -> None:
    """A job that cannot be read can still be answered."""
    message = pb.NotifyAIJob(taskId=7)
    message.AIJobData.pipeline, message.AIJobData.requestData = pipeline, data
    with pytest.raises(BadTask) as told:
        decode_ai_job(message.SerializeToString())
    assert told.value.task_id == 7


# --- results --------------------------------------------------------------------------------------


def test_a_result_is_what_an_orchestrator_reads() -> None:
    """Byte for byte: a file part with its name, the JSON part, the end."""
    file = ResultFile(name="ab.png", content_type="image/png", data=b"PNG")
    body = build_ai_result(AiResult(value={"images": []}, files=(file,)), "5f2c")
    assert b"".join(body.chunks) == (
        b"--5f2c\r\nContent-Type: image/png\r\nContent-Length: 3\r\n"
        b"Content-Disposition: attachment; filename=ab.png\r\n\r\nPNG\r\n"
        b"--5f2c\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"
        b'{"images":[]}\r\n--5f2c--\r\n'
    )
    assert body.length == sum(map(len, body.chunks))


@given(JSON, st.lists(st.binary(max_size=50), max_size=4), st.integers(1, 40))
def test_results_come_back(value: object, files: list[bytes], step: int) -> None:
    """Whatever is written is read again, in pieces of any size."""
    sent = AiResult(
        value=value,
        files=tuple(
            ResultFile(name=f"f{i}.png", content_type="image/png", data=data)
            for i, data in enumerate(files)
        ),
    )
    data = b"".join(build_ai_result(sent, "a-boundary-that-is-long").chunks)
    parser = AiResultParser(b"a-boundary-that-is-long")
    for at in range(0, len(data), step):
        parser.feed(data[at : at + step])
    assert parser.finish() == sent


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"--b\r\n\r\n",
        b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n",
        b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nContent-Type: application/json\r\n\r\n{nope\r\n--b--\r\n",
        b"--b\r\nContent-Type: application/json\r\n\r\n1\r\n" * 2 + b"--b--\r\n",
        b"--b\r\nContent-Type: application/json\r\n\r\n1\r\n" + b"--b\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nContent-Type: application/json\r\n\r\n1\r\n" * 99 + b"--b--\r\n",
    ],
)
def test_a_broken_result_is_refused_in_words(body: bytes) -> None:
    """No broken body is taken for a result."""
    parser = AiResultParser(b"b")
    with pytest.raises(BadUpload):
        parser.feed(body)
        parser.finish()


def test_a_named_file_must_be_there() -> None:
    """A file that is named and missing, or empty, is no result."""
    empty = ResultFile(name="a", content_type="image/png", data=b"")
    for files in ((), (empty,)):
        with pytest.raises(BadMessage, match="is missing"):
            files_of(AiResult(value=None, files=files), ["a"])


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"authorization": "Livepeer-Transcoder-1.0"}, 401),
        ({"credentials": ""}, 401),
        ({"taskid": "-1"}, 400),
        ({"taskid": "1" * 30}, 400),
        ({"taskid": "٣"}, 400),
        ({"content-type": ""}, 415),
        ({"content-type": "text/html"}, 415),
        ({"content-type": "multipart/mixed"}, 415),
        ({"content-type": "multipart/mixed; boundary=" + "x" * 71}, 415),
    ],
)
def test_bad_headers_are_refused(change: dict[str, str], status: int) -> None:
    """Each bad header has its status."""
    kind = "multipart/mixed; boundary=b"
    good = ai_headers(secret="s", task_id=7, pipeline="llm", content_type=kind)
    headers = {name.lower(): value for name, value in good.items()}
    assert read_ai_headers(headers).task_id == 7
    with pytest.raises(BadUpload) as told:
        read_ai_headers(headers | change)
    assert told.value.status == status


# --- forms and events -----------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from("abc"), st.text(max_size=30)), st.binary(max_size=80))
def test_forms_come_back(values: dict[str, str], data: bytes) -> None:
    """A form that is written is read again, whatever its values hold."""
    file = File("image/png", data)
    kind, body = build_form(values, {"file": file}, "0123456789abcdef")
    found = read_form(kind, body, "file")
    assert (dict(found.values), dict(found.files)) == (values, {"file": file})


def test_a_form_cannot_be_broken_by_a_name() -> None:
    """A name with a quote or a line break is refused."""
    for name in ('a"b', "a\r\nb"):
        with pytest.raises(BadMessage):
            build_form({name: "x"}, {}, "b")


WORDS = st.text(max_size=30).map(lambda text: {"delta": {"content": text}})
EVENTS = st.lists(
    st.fixed_dictionaries(
        {"choices": st.lists(WORDS | st.just({"delta": {}, "finish_reason": "stop"}), max_size=2)},
        optional={
            "usage": st.just({"prompt_tokens": 1, "completion_tokens": 2}),
            "id": st.just("c"),
        },
    ),
    max_size=8,
)


@given(EVENTS, st.integers(1, 60))
def test_no_event_can_crash_an_orchestrator(events: list[dict[str, object]], step: int) -> None:
    """Whatever a worker streams, in pieces of any size: each event has one choice, its line is
    short, exactly the last one finishes, and no text is lost."""
    data = b"".join(b"data: " + msgspec.json.encode(each) + b"\n\n" for each in events)
    chat, out = ChatEvents("m"), b""
    for at in range(0, len(data), step):
        out += chat.feed(data[at : at + step])
    told = [each["choices"][0] for each in events if each["choices"]]  # type: ignore[index]
    if not any(each.get("finish_reason") or each["delta"].get("content") for each in told):
        with pytest.raises(BadResult, match="no text"):
            chat.end()
        return
    out += chat.end()
    lines = [line for line in out.split(b"\n") if line]
    found = [msgspec.json.decode(line.removeprefix(b"data: ")) for line in lines]
    assert all(len(line) < 64 << 10 for line in lines)
    assert all(len(each["choices"]) == 1 for each in found)
    finished = [bool(each["choices"][0]["finish_reason"]) for each in found]
    assert finished == [False] * (len(found) - 1) + [True]
    assert text_of(found) == text_of([each for each in events if each["choices"]])


def text_of(events: list[dict[str, object]]) -> str:
    first = (each["choices"][0]["delta"] for each in events)  # type: ignore[index]
    return "".join(delta.get("content", "") for delta in first)


@pytest.mark.parametrize("text", ["\x01" * 70_000, "é" * 70_000, '"\\' * 40_000])
def test_a_long_text_becomes_several_short_lines(text: str) -> None:
    """Even a text whose every character is escaped stays below the 64 KiB of a line."""
    chat = ChatEvents("m")
    event = {"choices": [{"delta": {"content": text}}]}
    out = chat.feed(b"data: " + msgspec.json.encode(event) + b"\n\n") + chat.end()
    assert max(map(len, out.split(b"\n"))) < 64 << 10
