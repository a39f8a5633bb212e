"""What is a right answer, and how much was it? A worker's answer is believed as far as it shows."""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec import structs
from said import ASKED, PICTURE, SSE, chat, open_here, said, stream, tone, vectors

from openpool.core.call_requests import CallRequest, Checked
from openpool.core.calls import App, CallSource, Unit
from openpool.demo import scenes
from openpool.pool.answers import Answers
from openpool.pool.answers.nouns import Unmeasured, opener
from openpool.pool.answers.sessions import JPEG_HEAD
from openpool.pool.checkers import Checkers
from openpool.pool.exchange import Follow
from openpool.pool.findings import Weight
from openpool.wire.forms import to_data_url
from openpool.wire.framing import CONTENT_TYPE

LIVE = App("live-video-analysis", "m")
ASKED_LIVE = CallRequest(app=LIVE, source="direct", headers={"content-type": CONTENT_TYPE})


async def check(*args: Any, **rest: Any) -> Checked:
    """What the pool makes of it."""
    return await Answers(open_here).check(said(*args, **rest))


async def units(*args: Any, **rest: Any) -> int:
    """The units of an answer that is right."""
    checked = await check(*args, **rest)
    assert checked.usage.checked, checked
    assert not checked.blamed
    return checked.usage.units


async def blame(*args: Any, **rest: Any) -> str:
    """Why the worker is to blame for an answer that is wrong."""
    checked = await check(*args, **rest)
    assert checked.blamed, checked
    assert (checked.usage.checked, checked.usage.units) == (False, 0)
    return checked.usage.note


NO_UTF8 = b'{"%b": "\xff"}' % b'": "\xff", "'.join(
    b"text model usage choices data results error messages input file image prompt".split()
)
"""JSON but for the bytes in its strings, with whatever name is looked for."""

# --- every answer --------------------------------------------------------------------------------


async def test_a_failed_answer_earns_nothing() -> None:
    """A refusal is nobody's fault, a failure is the worker's; neither is credited."""
    assert not (await check("llm", "token", {}, b"", status=400)).blamed
    assert "status 500" in await blame("llm", "token", {}, b"", status=500)


async def test_an_unknown_pipeline_counts_requests() -> None:
    """Of an operator's own pipeline the pool knows only that there is an answer."""
    assert await units("own", "request", b"", b"x") == 1
    assert await units("own", "second", b"", b"x", took_ms=1200) == 2
    assert "empty" in await blame("own", "request", b"", b"")


@pytest.mark.parametrize(
    "pipeline",
    [
        "llm", "embeddings", "moderation", "text-to-speech", "speech-to-text", "image-to-text",
        "segmentation", "object-detection", "text-to-image", "live-video-analysis",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "answer", [b"", b"garbage", b"[" * 200_000, b'{"a":1}', b"\xff" * 100, NO_UTF8]
)
async def test_garbage_earns_nothing(pipeline: str, answer: bytes) -> None:
    """Whatever a worker sends instead of an answer, it is not credited and nothing breaks."""
    requests = {
        "llm": {"messages": [{"role": "user", "content": "hi"}]},
        "embeddings": {"input": "hi"},
        "moderation": {"input": "hi"},
        "text-to-speech": {"input": "hi"},
        "speech-to-text": {"file": to_data_url("audio/wav", tone(0.5))},
        "text-to-image": {"prompt": "a cat"},
    }
    request = requests.get(pipeline, {"image": to_data_url("image/png", PICTURE)})
    assert await blame(pipeline, "request", request, answer)


@pytest.mark.parametrize("request_body", [b"", b"garbage", b"[" * 200_000, NO_UTF8])
async def test_a_garbled_request_is_not_the_workers_fault(request_body: bytes) -> None:
    """What cannot be measured is not credited, but the worker is not blamed."""
    for pipeline in ("llm", "embeddings", "moderation", "speech-to-text", "object-detection"):
        checked = await check(pipeline, "request", request_body, b"{}")
        assert not checked.usage.checked
        assert not checked.blamed, pipeline


# --- chat ----------------------------------------------------------------------------------------


async def test_tokens_are_believed_within_reason() -> None:
    """A worker's count of tokens is taken, but never more than bytes or than was asked for."""
    honest = {"prompt_tokens": 9, "completion_tokens": 3}
    assert await units("llm", "token", ASKED, chat("Hello there", honest)) == 12
    liar = {"prompt_tokens": 9, "completion_tokens": 4000}
    assert await units("llm", "token", ASKED, chat("Hello there", liar)) == 9 + 11 + 16
    long = chat("Hello there " * 40, liar)
    assert await units("llm", "token", ASKED, long) == 9 + 50
    greedy = {"prompt_tokens": 10**9, "completion_tokens": 3}
    assert await units("llm", "token", ASKED, chat("Hello", greedy)) < 200


async def test_a_stream_counts_like_a_whole_answer() -> None:
    """Pieces of a stream are counted where the worker tells no number."""
    texts = ["Hel", "lo", " there"]
    assert await units("llm", "token", ASKED, stream(*texts), answer_type=SSE) == 10 + 3
    usage = {"prompt_tokens": 5, "completion_tokens": 4}
    counted = stream(*texts, usage=usage)
    assert await units("llm", "token", ASKED, counted, answer_type=SSE) == 9


async def test_a_stream_that_was_given_up_counts_as_far_as_it_went() -> None:
    """A client that hangs up pays for the tokens it got; before the first there is nothing."""
    cut = stream("Hel", "lo", end=False) + b'data: {"choi'
    assert await units("llm", "token", ASKED, cut, answer_type=SSE, whole=False) == 10 + 2
    role = b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
    checked = await check("llm", "token", ASKED, role, answer_type=SSE, whole=False)
    assert (checked.usage.checked, checked.blamed) == (False, False)


async def test_an_unfinished_chat_is_refused() -> None:
    """An answer without text or without an end was not made by a model."""
    assert "no text" in await blame("llm", "token", ASKED, chat(""))
    assert "finish_reason" in await blame("llm", "token", ASKED, chat("Hi", finish=None))
    unfinished = stream("Hi", end=False)
    assert "finish_reason" in await blame("llm", "token", ASKED, unfinished, answer_type=SSE)
    error = b'data: {"error":{"message":"out of memory"}}\n\n'
    assert "shape" in await blame("llm", "token", ASKED, error, answer_type=SSE)


async def test_tool_calls_are_an_answer() -> None:
    """A model that calls a tool instead of speaking has answered."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    assert await units("llm", "token", ASKED, answer) > 10


# --- embeddings ----------------------------------------------------------------------------------


async def test_vectors_are_counted_and_compared() -> None:
    """Each input has its vector, as numbers or packed; tokens are believed within the bytes."""
    packed = base64.b64encode(struct.pack("<8f", *range(8))).decode()
    answer = vectors([1.0] * 8, packed, tokens=5)
    assert await units("embeddings", "token", {"input": ["a cat", "a dog"]}, answer) == 5
    ids = {"input": [[1, 2, 3], [4, 5]]}
    assert await units("embeddings", "token", ids, vectors([1.0] * 8, [2.0] * 8, tokens=999)) == 5
    greedy = vectors([1.0] * 8, tokens=10**6)
    assert await units("embeddings", "token", {"input": "a cat"}, greedy) == 5 + 16


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (vectors([1.0] * 8), "1 vectors came for 2 inputs"),
        (vectors([1.0] * 8, [1.0] * 9), "differ in length"),
        (vectors([1.0] * 8, [0.0] * 8), "no direction"),
        (vectors([1.0] * 8, "!"), "base64"),
        (vectors([1.0] * 9, [1.0] * 9), "vectors of 8 numbers"),
        (vectors([], []), "vectors of 8 numbers"),
    ],
)
async def test_wrong_vectors(answer: dict[str, Any], reason: str) -> None:
    """Missing, empty and unequal vectors are refused."""
    asked = {"input": ["a", "b"], "dimensions": 8}
    assert reason in await blame("embeddings", "token", asked, answer)


# --- moderation ----------------------------------------------------------------------------------


def judgement(score: float, flagged: bool) -> dict[str, Any]:
    """One result."""
    return {
        "flagged": flagged,
        "categories": {"hate": score >= 0.5},
        "category_scores": {"hate": score},
    }


async def test_judgements() -> None:
    """A judgement for each text; flags and scores agree; a picture counts by its pixels."""
    two = {"results": [judgement(0.1, False), judgement(0.9, True)]}
    assert await units("moderation", "character", {"input": ["nice", "awful"]}, two) == 9
    url = to_data_url("image/png", PICTURE)
    parts = {"input": [{"type": "image_url", "image_url": {"url": url}}]}
    one = {"results": [judgement(0.1, False)]}
    assert await units("moderation", "pixel", parts, one) == 64 * 48
    assert "2 judgements came instead of 1" in await blame("moderation", "character", parts, two)
    for score, flagged in ((1.5, True), (0.9, False)):
        wrong = {"results": [judgement(score, flagged)]}
        assert await blame("moderation", "character", {"input": "x"}, wrong)


# --- sound ---------------------------------------------------------------------------------------


async def test_transcriptions() -> None:
    """The length of a sound is the pool's own; so much text cannot be said in so little time."""
    asked = {"file": to_data_url("audio/wav", tone(2))}
    assert await units("speech-to-text", "ms", asked, {"text": "hello"}) == 2000
    assert await units("speech-to-text", "ms", asked, b"hello", answer_type="text/plain") == 2000
    assert "cannot be said" in await blame("speech-to-text", "ms", asked, {"text": "a" * 600})
    assert "not silent" in await blame("speech-to-text", "ms", asked, {"text": " "})
    silent = {"file": to_data_url("audio/wav", tone(2, loudness=50))}
    assert await units("speech-to-text", "ms", silent, {"text": ""}) == 2000


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (SSE, b'data: {"type":"transcript.text.delta","delta":"hel"}\n\n'
              b'data: {"type":"transcript.text.done","text":"hello"}\n\n'),
        (SSE, b'data: {"delta":"hel"}\n\ndata: {"delta":"lo"}\n\ndata: [DONE]\n\n'),
        ("application/x-subrip", b"1\n00:00:00,000 --> 00:00:02,000\nhello\n\n" * 9),
        ("text/vtt; charset=utf-8", b"WEBVTT\n\n00:00.000 --> 00:02.000\nhello\n"),
    ],
)  # fmt: skip
async def test_forms_of_a_transcription(kind: str, told: bytes) -> None:
    """Events and subtitles are read for their text; marks and times are not words."""
    asked = {"file": to_data_url("audio/wav", tone(2))}
    assert await units("speech-to-text", "ms", asked, told, answer_type=kind) == 2000
    empty = b'data: {"delta":""}\n\n' if kind == SSE else b"1\n00:00.000 --> 00:02.000\n"
    assert "not silent" in await blame("speech-to-text", "ms", asked, empty, answer_type=kind)


async def test_a_lying_header_does_not_stretch_a_sound() -> None:
    """A file of one second whose head claims hours is one second."""
    lie = bytearray(tone(1))
    lie[4:8] = lie[40:44] = struct.pack("<I", 500_000_000)
    asked = {"file": to_data_url("audio/wav", bytes(lie))}
    assert await units("speech-to-text", "ms", asked, {"text": "hello"}) == 1000


async def test_speech() -> None:
    """Speech must be about as long as its text, and heard."""
    asked = {"input": "The quick brown fox jumps over the lazy dog"}
    rest = {"answer_type": "audio/wav"}
    assert await units("text-to-speech", "character", asked, tone(3), **rest) == 43
    assert "silent" in await blame("text-to-speech", "character", asked, tone(3, 10), **rest)
    assert "how long" in await blame("text-to-speech", "character", asked, tone(0.2), **rest)
    assert "damaged" in await blame("text-to-speech", "character", asked, b"RIFF", **rest)
    in_json = {"audio": {"url": to_data_url("audio/wav", tone(3))}}
    assert await units("text-to-speech", "character", asked, in_json) == 43
    raw = struct.pack("<h", 9000) * 48_000
    assert await units("text-to-speech", "character", asked, raw, answer_type="audio/pcm") == 43


# --- pictures ------------------------------------------------------------------------------------

SENT = {"image": to_data_url("image/png", PICTURE)}
SIZE = {"width": 64, "height": 48}


def box(**changes: Any) -> dict[str, Any]:
    """A box that is right, but for the changes."""
    return {"label": "cat", "score": 0.5, "x": 1, "y": 2, "w": 10, "h": 20, **changes}


async def test_boxes() -> None:
    """Boxes lie inside a picture whose size the pool measured."""
    right = {**SIZE, "boxes": [box()]}
    assert await units("object-detection", "pixel", SENT, right) == 64 * 48
    turned = {"width": 48, "height": 64, "boxes": []}
    assert await units("object-detection", "pixel", SENT, turned) == 64 * 48
    for wrong in ({"x": -1}, {"w": 64}, {"h": 0}, {"score": 1.1}, {"label": ""}, {"y": 40}):
        answer = {**SIZE, "boxes": [box(**wrong)]}
        assert await blame("object-detection", "pixel", SENT, answer), wrong
    other = {"width": 640, "height": 480, "boxes": []}
    assert "640x480" in await blame("object-detection", "pixel", SENT, other)


async def test_a_damaged_picture_is_not_the_workers_fault() -> None:
    """What was asked about cannot be opened: nothing is credited, nobody is blamed."""
    broken = {"image": to_data_url("image/png", PICTURE[:100])}
    checked = await check("object-detection", "pixel", broken, {**SIZE, "boxes": []})
    assert (checked.usage.checked, checked.blamed) == (False, False)


def line(text: str, **changes: Any) -> dict[str, Any]:
    """A line of text."""
    return {"text": text, "score": 0.9, "box": [[0, 0], [9, 0], [9, 9], [0, 9]], **changes}


async def test_reading() -> None:
    """The text is that of its lines, which lie inside the picture; a description is not empty."""
    right = {**SIZE, "text": "a\nb", "lines": [line("a"), line("b")]}
    assert await units("image-to-text", "pixel", SENT, right) == 64 * 48
    assert await units("image-to-text", "pixel", SENT, {"text": "a cat"}) == 64 * 48
    assert "empty" in await blame("image-to-text", "pixel", SENT, {"text": " "})
    assert "that of its lines" in await blame(
        "image-to-text", "pixel", SENT, {**right, "text": "c"}
    )
    outside = {**SIZE, "text": "a", "lines": [line("a", box=[[0, 0], [99, 0], [9, 9], [0, 9]])]}
    assert "corners" in await blame("image-to-text", "pixel", SENT, outside)


def mask(**changes: Any) -> dict[str, Any]:
    """A mask: the left column of the picture."""
    png = to_data_url("image/png", scenes.to_file(scenes.draw(64, 48).convert("L")))
    rle = {"size": [48, 64], "counts": [0, 48, 63 * 48]}
    return {"x": 0, "y": 0, "w": 1, "h": 48, "area": 48, "rle": rle, "png": png, **changes}


async def test_masks() -> None:
    """The three forms of a mask agree with each other and with the picture."""
    assert await units("segmentation", "pixel", SENT, {**SIZE, "masks": [mask()]}) == 64 * 48
    small = to_data_url("image/png", scenes.to_file(scenes.draw(32, 24)))
    for wrong in (
        {"area": 49},
        {"w": 65},
        {"h": 40},
        {"png": small},
        {"png": "http://elsewhere"},
        {"rle": {"size": [48, 64], "counts": [0, 48]}},
        {"rle": {"size": [48, 64], "counts": [-1, 48, 63 * 48 + 1]}},
        {"rle": {"size": [1, 1], "counts": [0, 1]}},
        {"rle": {"size": [48, 64], "counts": []}},
    ):
        answer = {**SIZE, "masks": [mask(**wrong)]}
        assert await blame("segmentation", "pixel", SENT, answer), wrong


async def test_pictures_that_were_made() -> None:
    """As many pictures as asked for, of the size that was asked for."""
    made = {"b64_json": base64.b64encode(PICTURE).decode()}
    asked = {"prompt": "a ball", "size": "64x48", "n": 2}
    assert await units("text-to-image", "pixel", asked, {"data": [made, made]}) == 2 * 64 * 48
    assert "1 picture came" in await blame("text-to-image", "pixel", asked, {"data": [made]})
    large = {**asked, "size": "128x128"}
    assert "wrong size" in await blame("text-to-image", "pixel", large, {"data": [made, made]})
    broken = {"b64_json": base64.b64encode(PICTURE[:99]).decode()}
    wrong = {"data": [made, broken]}
    assert "damaged" in await blame("text-to-image", "pixel", asked, wrong)


# --- live video ----------------------------------------------------------------------------------


def lines(*seen: dict[str, Any]) -> bytes:
    """What a session told."""
    return b"".join(msgspec.json.encode(one) + b"\n" for one in seen)


def frame(number: int, **changes: Any) -> dict[str, Any]:
    """What was seen in a frame."""
    seen = {"t_ms": number * 200, "frame": number, "width": 640, "height": 360, "boxes": [box()]}
    return {**seen, **changes}


def jpeg(width: int, height: int) -> bytes:
    """A frame as a picture."""
    return scenes.to_file(scenes.draw(width, height), "JPEG")


JPEG = jpeg(640, 360)


def shown(number: int, picture: bytes, **changes: Any) -> dict[str, Any]:
    """What was seen in a frame, with a picture of it."""
    return frame(number, jpeg=base64.b64encode(picture).decode(), **changes)


def follow() -> Follow:
    """What checks the answer of a session."""
    made = Answers(open_here).follow(ASKED_LIVE)
    assert made is not None
    return made


async def session(check: Follow, unit: Unit, fault: str = "") -> Checked:
    """What a session of a minute comes to."""
    seen = check.measured(61_000)
    told = said(
        LIVE.pipeline, unit, b"", b"", request_type=CONTENT_TYPE, took_ms=61_000, seen=seen,
        fault=fault,
    )  # fmt: skip
    return await Answers(open_here).check(told)


async def test_sessions_are_checked_as_they_pass() -> None:
    """A session counts by its time or its pixels, wherever its bytes are cut; a lost segment is no
    fault of the worker's."""
    told = lines(frame(0), {"t_ms": 200, "error": "damaged"}, frame(6))
    for size in (1, 7, len(told)):
        check, passed = follow(), b""
        for start in range(0, len(told), size):
            passed += await check.feed(told[start : start + size])
        check.end()
        assert (passed, check.fault) == (told, "")
        assert (await session(check, "second")).usage.units == 61
        assert (await session(check, "pixel")).usage.units == 2 * 640 * 360
    assert await check.feed(b'{"t_ms":') == b""
    assert (await session(check, "second")).usage.units == 61
    check.end()
    assert check.fault == "the last line is cut off"


@pytest.mark.parametrize("garbage", [b"garbage", NO_UTF8, b"[" * 200_000])
async def test_a_session_that_turns_to_garbage_is_paid_until_then_and_blamed(
    garbage: bytes,
) -> None:
    """What was right counts, with a note about the rest; nothing counts where nothing was right."""
    check = follow()
    told = lines(frame(0)) + garbage + b"\n" + lines(frame(1))
    assert await check.feed(told) == lines(frame(0))
    assert "right shape" in check.fault
    checked = await session(check, "pixel", "a line has not the right shape")
    assert (checked.usage.units, checked.usage.checked, checked.blamed) == (640 * 360, True, True)
    assert "then a line has not the right shape" in checked.usage.note
    checked = await session(follow(), "pixel", "a line has not the right shape")
    assert (checked.usage.units, checked.usage.checked, checked.blamed) == (0, False, True)


async def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    """Memory is bounded by the longest line that there may be."""
    check, fed = follow(), 0
    while not check.fault:
        assert await check.feed(b"x" * 20_000) == b""
        fed += 20_000
    assert "longer than" in check.fault
    assert fed < 3_100_000


async def test_pictures_beside_lines_are_opened_before_the_line_counts() -> None:
    """One in the frame's own size is right, and one in that at which large frames are shown."""
    check = follow()
    large = {"width": 2560, "height": 1440}
    right = lines(
        shown(0, JPEG), shown(1, jpeg(1280, 720), **large), shown(2, jpeg(2560, 1440), **large)
    )
    await check.feed(right)
    assert not check.fault
    assert await check.feed(lines(shown(3, JPEG[:900] + JPEG[-2:]), frame(4))) == b""
    checked = await session(check, "pixel", check.fault)
    assert checked.usage.units == 640 * 360 + 2 * 2560 * 1440
    assert "; then the JPEG of frame 3 is damaged" in checked.usage.note
    assert checked.blamed


@pytest.mark.parametrize(
    ("query", "wanted"),
    [("", False), ("?annotate=true", True), ("?fps=5&annotate=true", True),
     ("?annotate=false", False), ("?annotate=true&annotate=false", False), ("?annotate", False)],
)  # fmt: skip
async def test_a_picture_that_was_asked_for_must_come(query: str, wanted: bool) -> None:
    """A frame without the picture that its client asked for is not what was asked for; of a message
    that cannot be read there is none."""
    asked = structs.replace(ASKED_LIVE, path=f"/v1/live/detect{query}")
    check = Answers(open_here).follow(asked)
    assert check is not None
    told = lines({"t_ms": 0, "error": "damaged"}, shown(1, JPEG))
    assert await check.feed(told) == told
    await check.feed(lines(frame(2)))
    assert check.fault == ("frame 2 has no JPEG, which was asked for" if wanted else "")


async def test_pictures_of_sessions_leave_checkers_to_others() -> None:
    """However many sessions show frames at once, few are opened at once, and all in the end."""
    opening, most, go = 0, 0, asyncio.Event()

    async def slow(data: bytes) -> Weight:
        nonlocal opening, most
        opening += 1
        most = max(most, opening)
        await go.wait()
        opening -= 1
        return await open_here(data)

    answers = Answers(slow, shown_at_once=2)
    checks = [answers.follow(ASKED_LIVE) for _ in range(5)]
    async with asyncio.TaskGroup() as tasks:
        for check in checks:
            assert check is not None
            tasks.create_task(check.feed(lines(shown(0, JPEG))))
        while opening < 2:  # noqa: ASYNC110 - each turn of the loop is one step of a task
            await asyncio.sleep(0)
        go.set()
    assert most == 2
    assert all(check and check.measured(1) for check in checks)


async def test_a_picture_that_crashes_what_opens_it_is_the_workers_fault() -> None:
    """A decoder that dies of a picture costs its line, and no more is counted."""

    async def dies(_: bytes) -> Weight:
        raise Unmeasured("it crashed or blocked what opens it")

    check = Answers(dies).follow(ASKED_LIVE)
    assert check is not None
    assert await check.feed(lines(shown(0, JPEG))) == b""
    assert "frame 0 is damaged: it crashed or blocked" in check.fault
    assert check.measured(1000) is None


async def test_one_picture_without_a_session_is_checked_like_any_other() -> None:
    """An app of live video answers single pictures, too, as object detection does."""
    found = {"width": 64, "height": 48, "boxes": [box(x=1, y=1, w=5, h=5)]}
    assert await units(
        "live-video-analysis", "pixel", PICTURE, found, request_type="image/png"
    ) == (64 * 48)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (lines(frame(1), frame(0)), "go forward"),
        (lines(frame(0), frame(0)), "go forward"),
        (lines(frame(0, width=0)), "cannot be"),
        (lines(frame(0, width=-640, height=-360)), "cannot be"),
        (lines(frame(0, width=4096, height=2176)), "a frame of 4096x2176 cannot be"),
        (lines(frame(0, boxes=[box(x=700)])), "outside"),
        (lines({"t_ms": 0, "error": "damaged"}), "not one frame"),
        (lines(*(frame(n, t_ms=n) for n in range(200))), "64 frames in 63 ms"),
        (lines(shown(0, PICTURE)), "frame 0 is no whole JPEG"),
        (lines(shown(0, b"")), "frame 0 is no whole JPEG"),
        (lines(shown(0, JPEG[:-100])), "frame 0 is no whole JPEG"),
        (lines(shown(0, JPEG + b"more")), "frame 0 is no whole JPEG"),
        (lines(shown(0, JPEG[:900] + JPEG[-2:])), "the JPEG of frame 0 is damaged"),
        (lines(shown(0, JPEG_HEAD + tone(1) + JPEG[-2:])), "the JPEG of frame 0 is damaged"),
        (lines(shown(3, jpeg(64, 48))), "the JPEG of frame 3 is 64x48, not 640x360"),
        (lines(shown(0, jpeg(360, 640))), "is 360x640, not 640x360"),
        (lines(shown(0, jpeg(640, 360), width=2560, height=1440)), "not 1280x720"),
        (lines(shown(0, JPEG[:2] + bytes(2_000_000) + JPEG[-2:])), "has 2000004 bytes, over"),
        (lines(frame(0, jpeg="/9j/*")), "right shape"),
        (lines(frame(0, jpeg=[255, 216])), "right shape"),
        (lines(shown(0, JPEG, error="damaged")), "has no picture"),
    ],
)
async def test_sessions_that_cannot_be(told: bytes, reason: str) -> None:
    """Frames that repeat, run backwards, come in thousands or hold boxes outside are refused."""
    check = follow()
    await check.feed(told)
    if not check.fault:
        check.end()
    assert reason in check.fault


# --- in child processes --------------------------------------------------------------------------


@pytest.fixture
async def checkers() -> AsyncIterator[Checkers]:
    """One checker process."""
    made = Checkers(1)
    await made.start()
    yield made
    await made.close()


async def test_files_are_opened_in_a_child(checkers: Checkers) -> None:
    """Sizes come from the checker processes; a file that cannot be opened is told in words."""
    opened = opener(checkers, 10)
    assert await opened(PICTURE) == Weight(width=64, height=48)
    assert (await opened(tone(1))).audio_ms == 1000
    for scrap in (b"", b"hello", b"#EXTM3U\nfile:///etc/passwd\n", PICTURE[:100], tone(1)[:44]):
        with pytest.raises(Unmeasured, match="it "):
            await opened(scrap)


def _sources() -> tuple[CallSource, ...]:
    return ("direct", "live-runner", "ai-worker")


@pytest.mark.parametrize("source", _sources())
async def test_a_unit_that_nobody_counts_earns_nothing(source: CallSource) -> None:
    """A price in a unit that a pipeline does not have is no reason to fall over."""
    checked = await check("moderation", "token", {"input": "x"},
                          {"results": [judgement(0.1, False)]}, source=source)  # fmt: skip
    assert (checked.usage.checked, checked.blamed) == (False, False)
    assert checked.usage.note
