"""What customers may ask for when they post a segment, and what they are told if nothing comes."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from openpool.config.load import ConfigError, load
from openpool.core.call_requests import CallFailed
from openpool.core.capabilities import DEFAULT, Capability, bit_set, fits
from openpool.core.errors import BadMessage
from openpool.core.instructions import DeliverError
from openpool.core.lifecycle import TIME_IS_UP
from openpool.core.model import Profile
from openpool.core.transcodes import Made, checked_session, needs, read_profiles
from openpool.pool.checkers import Checkers
from openpool.pool.direct_video import DirectVideo, _failure
from openpool.pool.media import Media
from openpool.web.direct_errors import wrong_of
from openpool.web.transcode import Uploads, as_parts

ONE = {"name": "a", "width": 640, "height": 360, "bitrate_bps": 500_000}


def test_profiles_are_read_with_every_field() -> None:
    """What is written down becomes the profile that orchestrators would send."""
    more = {"fps_num": 30000, "fps_den": 1001, "container": "mp4", "gop_ms": -1, "quality": 28}
    assert read_profiles(json.dumps([{**ONE, **more}])) == (Profile(**{**ONE, **more}),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": "640"},
        {"width": 10**9},
        {"height": 0},
        {"bitrate_bps": 0},
        {"fps_den": 0},
        {"fps_num": -1},
        {"container": "avi"},
        {"gop_ms": -2},
        {"quality": 99},
        {"name": ""},
        {"name": "a b"},
        {"codec": 1},
    ],
)
def test_a_profile_out_of_bounds_is_refused(wrong: dict[str, object]) -> None:
    """Each field has its limits, and the message names the field or place."""
    with pytest.raises(BadMessage, match="`profiles` is not valid"):
        read_profiles(json.dumps([{**ONE, **wrong}]))


def test_too_many_profiles_are_refused() -> None:
    """Ten renditions are the most, deep nonsense is no trouble."""
    with pytest.raises(BadMessage, match="1 to 10"):
        read_profiles(json.dumps([{**ONE, "name": str(n)} for n in range(11)]))
    with pytest.raises(BadMessage):
        read_profiles("[" * 100_000)


def test_sessions_are_short_printable_names() -> None:
    """Whatever else is refused."""
    assert checked_session("camera 1") == "camera 1"
    for wrong in ("x" * 101, "a\nb"):
        with pytest.raises(BadMessage):
            checked_session(wrong)


def test_what_is_needed_can_be_done_by_any_stock_worker() -> None:
    """A customer's job needs what an orchestrator's would, and no more than the defaults."""
    both = read_profiles(
        json.dumps([ONE, {**ONE, "name": "b", "container": "mp4", "gop_ms": 500, "fps_den": 2}])
    )
    assert fits(needs(both), DEFAULT)
    assert needs(both) == bit_set(
        Capability.H264,
        Capability.MPEGTS,
        Capability.MP4,
        Capability.GOP,
        Capability.FRACTIONAL_FRAMERATES,
    )


def error(text: str, *, fault: bool = False, tried: int = 0) -> BaseException:
    return _failure(
        DeliverError(
            job="direct.start-1.0",
            orchestrator="direct",
            incarnation="start-1",
            task_id=0,
            text=text if fault else f"Open Pool: {text}",
            input_fault=fault,
            tried=tried,
        )
    )


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        (error("TranscoderInvalidVideo", fault=True), 400, "cannot be decoded"),
        (error("Too many outputs", fault=True), 400, "Too many outputs"),
        (error("no worker is connected"), 503, "No worker is connected."),
        (error(TIME_IS_UP, tried=1), 504, "in time"),
        (error("the pool tried 3 workers in vain", tried=3), 502, "tried 3 workers"),
    ],
)
def test_failures_have_a_status_and_words(found: BaseException, status: int, words: str) -> None:
    """Whose fault it was decides the status; the text is for people."""
    wrong = wrong_of(found)
    assert wrong.status == status
    assert words in wrong.message


def test_only_so_many_bodies_are_held() -> None:
    """One more than allowed is refused at once; a place that was left is free again."""
    uploads = Uploads(1)
    with uploads.one_more(), pytest.raises(CallFailed, match="Too many"), uploads.one_more():
        pass
    with uploads.one_more():
        pass


def test_parts_cannot_be_forged_by_video() -> None:
    """The line between the parts is drawn by lot for every answer."""
    made = [Made(name="a", container="mpegts", width=2, height=2, data=b"x")]
    first, second = as_parts(made)[0], as_parts(made)[0]
    assert first != second


async def test_a_full_memory_is_no_capacity() -> None:
    """A segment that the pool has no room for is refused, and leaves nothing behind."""
    facts: list[object] = []
    media = Media(10)
    video = DirectVideo(
        feed=facts.append,
        media=media,
        checkers=Checkers(1),
        price=lambda: (Fraction(1), "config"),
        hold=lambda job, customer, price_wei, pixels: None,
        epoch=1,
    )
    with pytest.raises(CallFailed) as refused, video._waiting("job", b"x" * 11):
        pass
    assert refused.value.failure == "insufficient-capacity"
    assert (media.held_bytes, media.has("job"), facts, video.waiting) == (0, False, [], {})


def test_no_orchestrator_may_be_called_direct(tmp_path: Path) -> None:
    """The name stands for customers in the books; two who share it could not be told apart."""
    file = tmp_path / "openpool.yaml"
    file.write_text("orchestrators: [{name: direct, address: 'o.example:8935', secret: x}]\n")
    with pytest.raises(ConfigError, match="another `name`"):
        load(file, environment={})
