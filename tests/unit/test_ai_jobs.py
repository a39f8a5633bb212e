"""Jobs as calls and calls as jobs: what is asked, and what garbage comes to."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core.calls import App
from openpool.core.errors import BadMessage, BadResult
from openpool.pool import ai_calls, ai_jobs
from openpool.wire.ai_messages import AiJob
from openpool.wire.ai_results import AiResult, ResultFile
from openpool.wire.forms import read_form, to_data_url

PIPELINES = sorted(ai_jobs.APPS)
REQUEST: dict[str, object] = {
    "model": "m", "model_id": "m", "prompt": "p", "text": "t", "messages": [],
}  # fmt: skip


def job(pipeline: str, **request: object) -> AiJob:
    return AiJob(task_id=1, pipeline=pipeline, request=REQUEST | request)


def asked(pipeline: str, **request: object) -> ai_jobs.Asked:
    return ai_jobs.asked_of(job(pipeline, **request), App("", ""), b"file")


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_pipeline_becomes_a_call_and_a_job_again(pipeline: str) -> None:
    """What is asked of our workers can be asked of stock workers, with the same file."""
    call = asked(pipeline)
    assert call.app == App(ai_jobs.APPS[pipeline], "m")
    if call.app.pipeline == "segmentation":
        return  # stock workers keep their own name and shape
    request, file = ai_calls.job_of(call.app, call.path, call.content_type, call.body)
    assert request["model" if pipeline == "llm" else "model_id"] == "m"
    assert file in (b"", b"file")


def test_the_lane_tells_apart_two_apps_of_one_name() -> None:
    """A stock worker's masks are asked for in its own way, ours in ours."""
    masks = job("segment-anything-2")
    stock = ai_jobs.asked_of(masks, App("segment-anything-2", "m"), b"file")
    ours = ai_jobs.asked_of(masks, App("segmentation", "m"), b"file")
    other = ai_jobs.asked_of(masks, App("segment-anything-2", "another"), b"file")
    assert (stock.app.pipeline, stock.path) == ("segment-anything-2", "/segment-anything-2")
    assert ours.app == other.app == App("segmentation", "m")


def test_values_of_a_form_keep_their_names_and_types() -> None:
    """Numbers and truth values come to a stock worker as such, and OpenAI's names as its own."""
    call = asked("image-to-image", strength=0.5, safety_check=True, seed=3, loras="")
    form = read_form(call.content_type, call.body, "image")
    assert form.values["strength"] == "0.5"
    assert "loras" not in form.values
    request, _ = ai_calls.job_of(call.app, call.path, call.content_type, call.body)
    assert request == {
        "image": None, "model_id": "m", "prompt": "p", "strength": 0.5, "safety_check": True,
        "seed": 3, "num_images_per_prompt": 1,
    }  # fmt: skip


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_request_without_a_model_is_refused(pipeline: str) -> None:
    """No model, or one that is no text, is the customer's mistake."""
    for model in (None, "", 7, ["m"]):
        with pytest.raises(BadMessage, match="model"):
            asked(pipeline, model=model, model_id=model)


@pytest.mark.parametrize(
    ("pipeline", "change"),
    [
        ("llm", {"messages": "hi"}),
        ("text-to-speech", {"text": 5}),
        ("text-to-image", {"prompt": ""}),
    ],
)
def test_what_is_missing_is_named(pipeline: str, change: dict[str, object]) -> None:
    """The sentence names the field."""
    with pytest.raises(BadMessage, match=next(iter(change))):
        asked(pipeline, **change)


@pytest.mark.parametrize("pipeline", PIPELINES)
@given(answer=st.binary(max_size=60) | st.sampled_from([b"{}", b"[]", b"null", b'{"text":1}']))
def test_garbage_is_no_result(pipeline: str, answer: bytes) -> None:
    """Any bytes are a result, or raise BadResult; speech may be any bytes but none."""
    with suppress(BadResult):
        found = ai_jobs.result_of(job(pipeline), "audio/wav", answer, lambda: "name")
        assert pipeline == "text-to-speech"
        assert found.files[0].data == answer != b""


@pytest.mark.parametrize(
    "url", ["https://evil.example/a.png", "/etc/passwd", "file:///etc/passwd", "data:image/png,x"]
)
def test_no_address_is_fetched(url: str) -> None:
    """A picture must be in the answer: an orchestrator might read an address as its own file."""
    answer = msgspec.json.encode({"images": [{"url": url}]})
    with pytest.raises(BadResult):
        ai_jobs.result_of(job("text-to-image"), "application/json", answer, lambda: "name")


def test_files_get_our_names_and_known_types() -> None:
    """Neither name nor type of a file is a worker's choice."""
    answer = msgspec.json.encode({"images": [{"url": to_data_url("text/html", b"<b>")}]})
    found = ai_jobs.result_of(job("upscale"), "application/json", answer, lambda: "ours")
    assert found.files == (ResultFile(name="ours.png", content_type="image/png", data=b"<b>"),)


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 2], "counts": [3]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [-2, -2], "counts": [4]},
        {"size": [100_000, 100_000], "counts": [10**10]},
    ],
)
def test_impossible_masks_are_refused(rle: dict[str, object]) -> None:
    """A mask that is not of its size, or too large to write out, is no answer."""
    answer = msgspec.json.encode({"masks": [{"rle": rle}]})
    with pytest.raises(BadResult):
        ai_jobs.result_of(job("segment-anything-2"), "", answer, lambda: "n")


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["images", "audio", "url", "text", "choices"]), inner)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("ours", sorted(ai_calls.THEIRS))
@given(value=VALUES)
def test_a_stock_workers_garbage_is_no_answer(ours: str, value: object) -> None:
    """Any JSON is an answer, or raises BadResult or BadMessage."""
    with suppress(BadResult, BadMessage):
        ai_calls.answer_of(App(ours, "m"), AiResult(value=value), b"", "application/json")


@pytest.mark.parametrize("ours", sorted(ai_calls.THEIRS))
@given(body=st.binary(max_size=60))
def test_a_customers_garbage_is_refused_in_words(ours: str, body: bytes) -> None:
    """Any body is a job, or raises BadMessage."""
    path = ai_calls._WRITERS[ai_calls.THEIRS[ours]][0]
    for kind in ("application/json", "multipart/form-data; boundary=b", "image/png"):
        with suppress(BadMessage):
            ai_calls.job_of(App(ours, "m"), path, kind, body)
    with pytest.raises(BadMessage, match="answers"):
        ai_calls.job_of(App(ours, "m"), "/elsewhere", "image/png", body)
