"""Units of calls: as an orchestrator debits them, and as the pool's own customers see them."""

import pytest

from openpool.core.usage import Measured, ai_worker_unit, units, units_of


@pytest.mark.parametrize(
    ("pipeline", "seen", "expected"),
    [
        ("text-to-image", Measured(), 512 * 512),
        ("text-to-image", Measured(width=1024, height=576, images=3), 1024 * 576 * 3),
        ("image-to-image", Measured(input_pixels=640 * 480, images=2), 640 * 480 * 2),
        ("image-to-video", Measured(), 1024 * 576 * 25),
        ("upscale", Measured(input_pixels=100 * 100), 10_000),
        ("audio-to-text", Measured(audio_ms=12_999), 12_000),
        ("audio-to-text", Measured(audio_ms=999), 0),
        ("segment-anything-2", Measured(input_pixels=300_000), 300_000),
        ("image-to-text", Measured(input_pixels=512 * 512), 512 * 512),
        ("llm", Measured(max_tokens=256, completion_tokens=3), 256),
        ("text-to-speech", Measured(characters=11), 11_000),
        ("live-video-to-video", Measured(session_ms=12_000), 10 * 1280 * 720 * 30),
    ],
)
def test_an_orchestrators_count_is_matched(pipeline: str, seen: Measured, expected: int) -> None:
    """Every pipeline of the older AI interface is counted as the orchestrator debits it: what was
    asked for, not what was made."""
    assert units(pipeline, "ai-worker", seen, ai_worker_unit(pipeline)) == expected


def test_a_chat_without_max_tokens_is_not_counted() -> None:
    """An orchestrator refuses such a chat before anybody sees it, so there is no count to match."""
    with pytest.raises(ValueError, match="max_tokens"):
        units("llm", "ai-worker", Measured(prompt_tokens=9, completion_tokens=3), "token")


def test_a_live_runner_counts_requests_and_whole_intervals() -> None:
    """A fixed price pays once; time pays for every 5 s that ended, and no part of one."""
    times = [4_999, 5_000, 14_999, 15_000]
    seen = [Measured(session_ms=each) for each in times]
    assert [units("llm", "live-runner", each, "second") for each in seen] == [0, 5, 10, 15]
    assert [units("llm", "live-runner", each, "request") for each in seen] == [1, 1, 1, 1]
    assert units("x", "live-runner", seen[1], "pixel") == 5 * 1280 * 720 * 30


@pytest.mark.parametrize(
    ("pipeline", "unit", "seen", "expected"),
    [
        ("llm", "token", Measured(prompt_tokens=9, completion_tokens=3, max_tokens=256), 12),
        ("embeddings", "token", Measured(prompt_tokens=9), 9),
        ("speech-to-text", "ms", Measured(audio_ms=1_234), 1_234),
        ("speech-to-text", "second", Measured(audio_ms=1_234), 2),
        ("text-to-speech", "character", Measured(characters=11), 11),
        ("image-to-text", "pixel", Measured(input_pixels=640 * 480), 307_200),
        ("segmentation", "pixel", Measured(input_pixels=640 * 480), 307_200),
        ("object-detection", "pixel", Measured(input_pixels=640 * 480), 307_200),
        ("moderation", "character", Measured(characters=5), 5),
        ("moderation", "request", Measured(characters=5), 1),
        ("moderation", "pixel", Measured(input_pixels=99), 99),
        ("live-video-analysis", "second", Measured(session_ms=61_001), 62),
        ("live-video-analysis", "pixel", Measured(session_ms=9, frame_pixels=1280 * 720), 921_600),
        ("text-to-image", "pixel", Measured(width=512, height=512, images=2), 524_288),
        ("my-own-thing", "request", Measured(), 1),
        ("my-own-thing", "second", Measured(session_ms=1), 1),
    ],
)
def test_a_customer_pays_for_what_it_got(
    pipeline: str, unit: str, seen: Measured, expected: int
) -> None:
    """The pool's own customers are counted by what was measured, in the unit of the price list."""
    assert units(pipeline, "direct", seen, unit) == expected


@pytest.mark.parametrize(
    ("pipeline", "source", "unit"),
    [
        ("llm", "direct", "pixel"),
        ("text-to-speech", "direct", "token"),
        ("my-own-thing", "direct", "token"),
        ("llm", "ai-worker", "request"),
        ("object-detection", "ai-worker", "pixel"),
        ("llm", "live-runner", "token"),
    ],
)
def test_a_unit_that_makes_no_sense_is_refused(pipeline: str, source: str, unit: str) -> None:
    """Counting in a unit that this buyer or this pipeline does not have is an error, not zero."""
    with pytest.raises(ValueError, match=r"count|knows no pipeline"):
        units(pipeline, source, Measured(), unit)


def test_every_pipeline_can_be_priced_by_request() -> None:
    """The usual unit comes first, a price per request is always possible."""
    assert units_of("llm") == ("token", "request")
    assert units_of("my-own-thing") == ("second", "request")
