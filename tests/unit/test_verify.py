"""The result verifier: honest renditions always pass, every cheat is refused with its sentence."""

import re
from collections.abc import AsyncIterator
from fractions import Fraction

import pytest
import pytest_asyncio
from renditions import Frames, Recipe, count_frames, drop_packets

from openpool.core.errors import Unavailable
from openpool.core.model import Codec, Container, H264Profile, Profile, Segment, Verdict
from openpool.demo.media import make_segments
from openpool.pool.verify import Verifier
from openpool.wire.results import RenditionData
from openpool.worker.engine import EngineSettings, transcode

pytestmark = pytest.mark.asyncio(loop_scope="module")

PORTRAIT = {"width": 180, "height": 320}
PREVIOUS, SOURCE = make_segments(320, 180, 30, 2, 2, seed=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def verifier() -> AsyncIterator[Verifier]:
    verifier = Verifier(1, sample_ppm=0)
    await verifier.start()
    yield verifier
    await verifier.close()


def profile(fps: Fraction | None = None, **changes: object) -> Profile:
    rate = {"fps_num": fps.numerator, "fps_den": fps.denominator} if fps else {}
    asked = {"name": "small", "width": 160, "height": 90, "bitrate_bps": 400_000, **rate, **changes}
    return Profile(**asked)  # type: ignore[arg-type]  # test values


def segment(*profiles: Profile, **changes: int) -> Segment:
    return Segment(seq=7, duration_ms=2000, profiles=profiles or (profile(),), **changes)


async def check(
    verifier: Verifier,
    uploads: list[RenditionData],
    asked: Segment | None = None,
    source: bytes = SOURCE,
    deep: bool = False,
) -> Verdict:
    job = f"job {hash(source)}"
    return await verifier.check(job, source, uploads, asked or segment(), "alice", deep=deep)


# --- honest ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["mpegts", "mp4"])
@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize(
    "fps", [None, Fraction(15), Fraction(60), Fraction(30000, 1001), Fraction(7)]
)
async def test_an_honest_rendition_passes(
    verifier: Verifier, container: Container, b_frames: int, fps: Fraction | None
) -> None:
    """Any container, frame rate and B-frame count passes, measured as a decoder measures it."""
    recipe = Recipe(container=container, fps=fps, options={"bf": str(b_frames)})
    sent = recipe.upload(SOURCE)
    asked = segment(profile(fps, container=container))
    verdict = await check(verifier, [sent], asked, deep=True)
    assert verdict.reason == ""
    assert verdict.ok
    assert verdict.source is not None
    assert (verdict.source.width, verdict.source.frames) == (320, 60)
    assert verdict.source.duration_ms == pytest.approx(2000, abs=2)
    assert verdict.renditions[0].frames == count_frames(sent.data)
    assert verdict.pixels == sent.pixels


@pytest.mark.parametrize(
    ("make", "recipe", "asked"),
    [
        pytest.param(PORTRAIT, Recipe(146, 260), {}, id="portrait, as narrow as encoders can"),
        pytest.param(PORTRAIT, Recipe(180, 320), {"width": 320}, id="portrait"),
        pytest.param({"audio": False}, Recipe(), {}, id="no sound"),
        pytest.param({"start_s": 0}, Recipe(options={"bf": "3"}), {}, id="from zero, B-frames"),
        pytest.param({"start_s": 0, "b_frames": 2}, Recipe(), {}, id="from zero, B-frames before"),
        pytest.param({"start_s": 90_000}, Recipe(), {}, id="after 25 hours"),
        pytest.param({"container": "mp4"}, Recipe(), {}, id="from mp4"),
        pytest.param({"seconds_each": Fraction(1, 30)}, Recipe(), {}, id="one frame"),
        pytest.param({"seconds_each": 0.5, "fps": 60}, Recipe(), {}, id="half a second"),
        pytest.param(
            {"seconds_each": Fraction(1, 5)},
            Recipe(fps=Fraction(7)),
            {"fps_num": 7},
            id="one frame left of six",
        ),
        pytest.param({}, Recipe(options={"g": "1"}), {"gop_ms": -1}, id="intra only"),
        pytest.param(
            {},
            Recipe(encoder="libx265", options={"x265-params": "log-level=none"}),
            {"codec": Codec.H265},
            id="H.265",
        ),
    ],
)
async def test_an_honest_rendition_of_an_unusual_source_passes(
    verifier: Verifier, make: dict[str, object], recipe: Recipe, asked: dict[str, object]
) -> None:
    """Portrait, silent, very short, starting at zero or after a day: the size and times follow."""
    options = {"width": 320, "height": 180, "fps": 30, "seconds_each": 2, "count": 1} | make
    [source] = make_segments(**options)  # type: ignore[arg-type]  # test values
    asked_segment = segment(profile(**asked))  # type: ignore[arg-type]  # test values
    verdict = await check(verifier, [recipe.upload(source)], asked_segment, source, deep=True)
    assert (verdict.ok, verdict.reason) == (True, "")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param({}, id="usual"),
        pytest.param({"b_frames": 2, "start_s": 0}, id="from zero"),
        pytest.param({"fps": 10, "seconds_each": Fraction(1, 10)}, id="a single frame"),
        pytest.param({"container": "mp4", "fps": Fraction(30000, 1001)}, id="from mp4"),
    ],
)
async def test_what_our_own_worker_makes_passes(
    verifier: Verifier, make: dict[str, object]
) -> None:
    """Worker and pool agree on sizes, counts and times, for every kind of profile at once."""
    options = {"width": 320, "height": 180, "fps": 30, "seconds_each": 2, "count": 1} | make
    [source] = make_segments(**options)  # type: ignore[arg-type]  # test values
    asked = segment(
        profile(),
        profile(Fraction(60), name="twice", gop_ms=500),
        profile(Fraction(15), name="half", container="mp4", h264_profile=H264Profile.BASELINE),
        profile(name="film", container="mp4", h264_profile=H264Profile.HIGH, gop_ms=-1),
    )
    made = transcode(source, asked, EngineSettings(preset="ultrafast"))
    sent = [upload(each.data, each.pixels) for each in made.renditions]
    verdict = await check(verifier, sent, asked, source, deep=True)
    assert (verdict.ok, verdict.reason) == (True, "")


@pytest.mark.parametrize("fps", [None, Fraction(30)])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: drop_packets(data, lambda rank: rank % 7 in (2, 3)), id="uneven"),
        pytest.param(lambda data: drop_packets(data, lambda rank: rank == 0), id="no key frame"),
        pytest.param(lambda data: data[: len(data) * 2 // 3], id="cut off"),
        pytest.param(lambda data: with_another_stream(data), id="a stream begins in the middle"),
        pytest.param(lambda data: data[188 * 40 :], id="beginning lost"),
        pytest.param(lambda data: data[:60_000] + data[64_000:], id="hole"),
    ],
)
async def test_a_worker_is_not_blamed_for_a_damaged_source(
    verifier: Verifier, damage: object, fps: Fraction | None
) -> None:
    """Frames that no decoder gets out of the source are not asked of the rendition."""
    [whole] = make_segments(320, 180, 30, 5, 1, b_frames=0)
    source = damage(whole)  # type: ignore[operator]  # test values
    sent = Recipe(fps=fps).upload(source)
    verdict = await check(verifier, [sent], segment(profile(fps)), source)
    assert (verdict.ok, verdict.reason) == (True, "")


def with_another_stream(data: bytes) -> bytes:
    """A sound packet in the middle comes under a number that was never announced."""
    for start in range(len(data) // 188 // 2 * 188, len(data), 188):
        if data[start + 1 : start + 3] == b"\x41\x01":
            return data[: start + 2] + b"\x03" + data[start + 3 :]
    raise AssertionError("no sound packet found")


async def test_a_clip_is_checked_against_the_part_that_was_asked_for(verifier: Verifier) -> None:
    """A clip has the frames between its ends, and starts at zero; more or fewer are refused."""

    def cut(first: int, last: int) -> Recipe:
        return Recipe(
            audio=False,
            change=lambda frames: frames[first:last],
            start_shift_s=-(Fraction(12) + Fraction(first, 30)),
        )

    asked = segment(clip_from_ms=500, clip_to_ms=1500)
    right = await check(verifier, [cut(15, 46).upload(SOURCE)], asked, deep=True)
    assert (right.ok, right.reason) == (True, "")
    short = await check(verifier, [cut(15, 30).upload(SOURCE)], asked)
    assert "15 frames" in short.reason


# --- cheats ---------------------------------------------------------------------------------------


def half(frames: Frames) -> Frames:
    return frames[::2]


def without_tail(frames: Frames) -> Frames:
    return frames[:50]


def upload(data: bytes, pixels: int) -> RenditionData:
    return RenditionData(data=data, pixels=pixels)


HONEST = Recipe().upload(SOURCE)


@pytest.mark.parametrize(
    ("uploads", "sentence"),
    [
        pytest.param([], r"the result has 0 renditions where 1 should be", id="none"),
        pytest.param([HONEST, HONEST], r"has 2 renditions where 1 should be", id="too many"),
        pytest.param([upload(b"", 0)], r"'small' is empty \(0 bytes\)", id="empty"),
        pytest.param([upload(b"G" * 24, 1)], r"'small' is empty \(24 bytes\)", id="24 bytes"),
        pytest.param([upload(b"junk" * 5000, 1)], r"'small' cannot be read", id="garbage"),
        pytest.param(
            [Recipe(width=158, height=88).upload(SOURCE)],
            r"'small' is 158x88; it should be 160x90",
            id="size",
        ),
        pytest.param(
            [Recipe(change=half).upload(SOURCE)],
            r"'small' has 30 frames where 60 should be",
            id="half the frames",
        ),
        pytest.param(
            [Recipe(change=without_tail).upload(SOURCE)],
            r"'small' has 50 frames where 60 should be",
            id="no tail",
        ),
        pytest.param(
            [upload(HONEST.data[: len(HONEST.data) // 2], HONEST.pixels)],
            r"'small' is cut off in the middle",
            id="truncated",
        ),
        pytest.param(
            [upload(HONEST.data[: 188 * 300], HONEST.pixels)],
            r"'small' has (lost the sound|a sound track|\d+ frames)",
            id="truncated between packets",
        ),
        pytest.param(
            [Recipe(container="mp4").upload(SOURCE)],
            r"'small' is mp4; mpegts was asked for",
            id="container",
        ),
        pytest.param(
            [Recipe(encoder="mpeg4", fps=Fraction(30)).upload(SOURCE)],
            r"'small' is encoded as mpeg4; h264 was asked for",
            id="codec",
        ),
        pytest.param(
            [Recipe().upload(PREVIOUS)],
            r"'small' has a sound track that is not a copy",
            id="previous segment",
        ),
        pytest.param(
            [Recipe(start_shift_s=Fraction(-12)).upload(SOURCE)],
            r"'small' starts at \d+ ms; the source at 12000 ms",
            id="times from zero",
        ),
        pytest.param(
            [Recipe(start_shift_s=Fraction(-2)).upload(SOURCE)],
            r"'small' starts at 10000 ms; the source at 12000 ms",
            id="times of the previous segment",
        ),
        pytest.param(
            [upload(HONEST.data, HONEST.pixels + 1)],
            r"'small' is claimed to have 864001 pixels; it has 864000",
            id="inflated",
        ),
        pytest.param(
            [Recipe(audio=False).upload(SOURCE)], r"'small' has lost the sound", id="no sound"
        ),
    ],
)
async def test_a_cheat_is_refused_in_one_sentence(
    verifier: Verifier, uploads: list[RenditionData], sentence: str
) -> None:
    """Each way of not doing the job is named; no rendition of it is recorded."""
    verdict = await check(verifier, uploads)
    assert not verdict.ok
    assert not verdict.input_fault
    assert verdict.renditions == ()
    assert re.search(sentence, verdict.reason), verdict.reason


async def test_a_rendition_far_above_its_bit_rate_is_refused(verifier: Verifier) -> None:
    """A worker cannot make the pool deliver many times the bytes that were asked for."""
    bulky = Recipe(width=320, height=180, options={"qp": "0"}).upload(SOURCE)
    verdict = await check(verifier, [bulky], segment(profile(width=320, bitrate_bps=20_000)))
    assert re.search(r"'small' is far larger \(\d+ bytes\) than 20000 bit/s", verdict.reason)


async def test_half_the_frames_are_refused_at_a_fixed_rate(verifier: Verifier) -> None:
    """With a frame rate asked for, the count follows the duration."""
    verdict = await check(
        verifier,
        [Recipe(fps=Fraction(30), change=half).upload(SOURCE)],
        segment(profile(Fraction(30))),
    )
    assert re.search(r"has 30 frames where 5\d to 6\d should be", verdict.reason), verdict.reason


async def test_one_bad_rendition_spoils_the_result(verifier: Verifier) -> None:
    """The second rendition is checked like the first and named by its own name."""
    bad = Recipe(width=200, height=112, change=half).upload(SOURCE)
    asked = segment(profile(), profile(name="second", width=200))
    verdict = await check(verifier, [HONEST, bad], asked)
    assert verdict.reason.startswith("rendition 'second' has 30 frames")


# --- the deeper look ------------------------------------------------------------------------------


def black(frames: Frames) -> Frames:
    for frame in frames:
        for plane, value in zip(frame.planes, (16, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
    return frames


def last_third_black(frames: Frames) -> Frames:
    return frames[:40] + black(frames[40:])


def frozen(frames: Frames) -> Frames:
    first = [bytes(plane) for plane in frames[0].planes]
    for frame in frames:
        for plane, data in zip(frame.planes, first, strict=True):
            plane.update(data)
    return frames


def stuttering(frames: Frames) -> Frames:
    for start in range(0, len(frames), 6):
        frozen(frames[start : start + 6])
    return frames


def replayed() -> RenditionData:
    """The picture of another stream with the times and the sound of this one."""
    [other] = make_segments(320, 180, 30, 2, 1, seed=5, start_s=400)
    pictures = Recipe()
    shown: list[list[bytes]] = []
    pictures.change = lambda frames: (
        shown.extend([bytes(p) for p in f.planes] for f in frames) or (frames)
    )
    pictures.make(other)

    def repaint(frames: Frames) -> Frames:
        for frame, planes in zip(frames, shown, strict=True):
            for plane, data in zip(frame.planes, planes, strict=True):
                plane.update(data)
        return frames

    return Recipe(change=repaint).upload(SOURCE)


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        pytest.param(Recipe(change=black).upload(SOURCE), "does not show", id="black"),
        pytest.param(Recipe(change=last_third_black).upload(SOURCE), "something else", id="third"),
        pytest.param(Recipe(change=frozen).upload(SOURCE), "still|does not show", id="frozen"),
        pytest.param(Recipe(change=stuttering).upload(SOURCE), "stands still", id="stuttering"),
        pytest.param(replayed(), "does not show|shows something else", id="replayed"),
    ],
)
async def test_a_false_picture_is_seen_when_looked_at(
    verifier: Verifier, sent: RenditionData, sentence: str
) -> None:
    """Black, frozen or replayed pictures have the right form: only the deeper look sees them."""
    blind = await check(verifier, [sent])
    assert (blind.ok, blind.reason) == (True, "")
    verdict = await check(verifier, [sent], deep=True)
    assert not verdict.ok
    assert re.search(sentence, verdict.reason), verdict.reason


def padded(data: bytes, number: int) -> bytes:
    """The same video in other bytes: a null packet more, as TS allows anywhere."""
    return data + b"\x47\x1f\xff\x10" + number.to_bytes(4, "big") * 46


async def test_a_sample_is_looked_at_and_more_of_new_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """About the set share of fakes is caught, and ten times that of new workers."""
    monkeypatch.setattr("openpool.pool.verify.NEW_WORKER_CHECKS", 30)
    sampling = Verifier(1, secret=b"k", sample_ppm=50_000)
    await sampling.start()

    async def caught(count: int, offset: int) -> int:
        refused = 0
        for number in range(offset, offset + count):
            sent = upload(padded(fake, number), HONEST.pixels)
            refused += not (await sampling.check("j", SOURCE, [sent], segment(), "bob")).ok
        return refused

    fake = Recipe(change=black).make(SOURCE)
    try:
        assert 10 <= await caught(40, 0) <= 30  # half of them
        await caught(40, 1000)
        assert sampling.passed("bob") > 30
        assert await caught(40, 2000) <= 8  # a twentieth
    finally:
        await sampling.close()


# --- broken sources -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "asked", "text"),
    [
        pytest.param(b"junk" * 5000, segment(), "TranscoderInvalidVideo", id="garbage"),
        pytest.param(b"", segment(), "TranscoderInvalidVideo", id="empty"),
        pytest.param(
            drop_packets(SOURCE, lambda rank: True), segment(), "TranscoderInvalidVideo", id="sound"
        ),
        pytest.param(
            SOURCE,
            Segment(seq=7, duration_ms=2000, profiles=()),
            "Invalid argument",
            id="no renditions",
        ),
        pytest.param(
            SOURCE, segment(*[profile()] * 11), "Too many outputs", id="eleven renditions"
        ),
        pytest.param(
            SOURCE, segment(profile(codec=Codec.VP9)), "Encoder not found", id="no encoder"
        ),
    ],
)
async def test_a_source_that_nobody_can_transcode_is_nobodys_fault(
    verifier: Verifier, source: bytes, asked: Segment, text: str
) -> None:
    """The verdict names the input, in the words that make a gateway keep the orchestrator."""
    verdict = await check(verifier, [HONEST], asked, source)
    assert (verdict.ok, verdict.input_fault, verdict.reason) == (False, True, text)
    assert await verifier.source_fault(f"job {hash(source)}", source, asked) == text


async def test_a_good_source_has_no_fault(verifier: Verifier) -> None:
    """When workers fail on a source that is in order, the source is not blamed."""
    assert await verifier.source_fault("good", SOURCE, segment()) == ""


async def test_a_full_queue_refuses_early(verifier: Verifier) -> None:
    """Past the bound a check is refused at once instead of waiting for ever."""
    full = Verifier(1, waiting_max=0)
    with pytest.raises(Unavailable, match="too many results"):
        await full.check("j", SOURCE, [HONEST], segment())
