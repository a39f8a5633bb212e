"""Registration and notifications: what is written is read back, and nothing else gets through."""

import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core.errors import BadMessage
from openpool.core.model import Codec, H264Profile, Profile, Segment
from openpool.wire import livepeer_pb2 as pb
from openpool.wire.messages import (
    BadTask,
    Notification,
    RegisterRequest,
    capability_bits,
    capability_words,
    decode_notification,
    decode_register,
    encode_notification,
    encode_register,
)
from openpool.wire.reading import MESSAGE_BYTES_MAX

PROFILE = Profile(name="360p", width=640, height=360, bitrate_bps=700_000)
SEGMENT = Segment(seq=17, duration_ms=2000, profiles=(PROFILE,), capabilities=67_112_963)
TASK = Notification(
    url="https://203.0.113.7:8935/stream/1a2b3c4d/17.tempfile",
    task_id=3,
    session="1a2b3c4d",
    manifest="demo",
    segment=SEGMENT,
)

names = st.text(string.ascii_letters + string.digits + " -_äß語", min_size=1, max_size=30)
profiles = st.builds(
    Profile,
    name=names,
    width=st.integers(0, 16_384),
    height=st.integers(0, 16_384),
    bitrate_bps=st.integers(0, 2**31 - 1),
    fps_num=st.integers(0, 2**32 - 1),
    fps_den=st.integers(1, 2**32 - 1),
    container=st.sampled_from(["mpegts", "mp4"]),
    h264_profile=st.sampled_from(H264Profile),
    gop_ms=st.integers(-1, 2**31 - 1),
    codec=st.sampled_from(Codec),
    quality=st.integers(0, 2**32 - 1),
)
clips = st.one_of(
    st.just((0, 0)),
    st.tuples(st.integers(0, 2**40), st.integers(1, 2**40)).map(lambda c: (c[0], c[0] + c[1])),
)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    start, end = draw(clips)
    return Segment(
        seq=draw(st.integers(-(2**63), 2**63 - 1)),
        duration_ms=draw(st.integers(0, 300_000)),
        profiles=tuple(draw(st.lists(profiles, min_size=1, max_size=10))),
        capabilities=draw(st.integers(0, 2**130)),
        min_version=draw(st.sampled_from(["", "0.8.8"])),
        perceptual_hash=draw(st.booleans()),
        clip_from_ms=start,
        clip_to_ms=end,
        reinit=draw(st.booleans()),
        orchestrator_address=draw(st.sampled_from(["", "0x" + "ab" * 20])),
    )


tasks = st.builds(
    Notification,
    url=names.map(lambda path: f"https://pool.example/{path}"),
    task_id=st.integers(0, 2**63 - 1),
    session=names,
    manifest=st.one_of(st.just(""), names),
    segment=segments(),
)


@given(tasks)
def test_a_task_is_read_as_it_was_written(task: Notification) -> None:
    """Every task that can be expressed survives the wire unchanged."""
    assert decode_notification(encode_notification(task)) == task


@given(
    st.builds(
        RegisterRequest,
        secret=st.text(max_size=100),
        capacity=st.integers(-(2**63), 1_000_000),
        capabilities=st.integers(0, 2**130),
        version=st.sampled_from(["", "0.9.1", "undefined"]),
    )
)
def test_a_registration_is_read_as_it_was_written(request: RegisterRequest) -> None:
    """Secret, capacity, capabilities and version survive the wire unchanged."""
    assert decode_register(encode_register(request)) == request


@given(st.binary(max_size=300))
def test_garbage_is_a_bad_message(data: bytes) -> None:
    """Random bytes are either a message or BadMessage, never another exception."""
    for decode in (decode_register, decode_notification):
        with suppress(BadMessage):
            decode(data)


@given(tasks, st.data())
def test_a_truncated_or_damaged_task_is_a_bad_message(
    task: Notification, data: st.DataObject
) -> None:
    """A task that lost its end or had a byte changed never raises anything but BadMessage."""
    whole = bytearray(encode_notification(task))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    for damaged in (bytes(whole), bytes(whole[:place])):
        with suppress(BadMessage):
            decode_notification(damaged)


def test_a_registration_without_capabilities_says_so() -> None:
    """An absent capabilities message is None, which is not the same as an empty set."""
    data = pb.RegisterRequest(secret="s", capacity=1).SerializeToString()
    assert decode_register(data).capabilities is None
    given = RegisterRequest(secret="s", capacity=1, capabilities=None)
    assert encode_register(given) == data
    assert decode_register(encode_register(RegisterRequest(secret="", capacity=0, capabilities=0)))


def test_capacities_are_one_per_capability() -> None:
    """New nodes count each capability once, and so do we."""
    message = pb.RegisterRequest.FromString(
        encode_register(RegisterRequest(secret="s", capacity=5, capabilities=0b101, version="1"))
    )
    assert dict(message.capabilities.capacities) == {0: 1, 2: 1}
    assert list(message.capabilities.bitstring) == [0b101]


def test_a_teardown_carries_a_session_and_nothing_else() -> None:
    """The end of a session is a notification without URL, as stock transcoders expect it."""
    message = pb.NotifySegment.FromString(encode_notification(Notification(session="abc")))
    expected = pb.NotifySegment(segData=pb.SegData(auth_token=pb.AuthToken(session_id="abc")))
    assert message == expected
    assert decode_notification(expected.SerializeToString()) == Notification(session="abc")


def test_a_cancelled_task_carries_only_its_id() -> None:
    """Our own workers are told the id, which may be 0 as the first of an orchestrator is."""
    for task_id in (0, 2**62):
        cancelled = Notification(cancelled_task_id=task_id)
        assert decode_notification(encode_notification(cancelled)) == cancelled


def test_a_task_looks_like_one_from_an_orchestrator() -> None:
    """The blanked fields are blanked in the way of go-livepeer, and no token goes along."""
    message = pb.NotifySegment.FromString(encode_notification(TASK))
    assert message.profiles == message.segData.profiles == b"invalid"
    assert message.segData.hash == bytes(32)
    assert message.segData.sig == b""
    assert not message.segData.storage
    assert message.segData.auth_token == pb.AuthToken(session_id="1a2b3c4d")
    assert not message.segData.HasField("segment_parameters")


def test_every_notification_needs_a_session() -> None:
    """A stock GPU transcoder crashes without a session id, so none is ever sent."""
    for broken in (Notification(url="https://x/y", segment=SEGMENT), Notification()):
        with pytest.raises(ValueError, match="session"):
            encode_notification(broken)


@pytest.mark.parametrize(
    ("profile", "field"),
    [
        (PROFILE, "fullProfiles"),
        (Profile(name="a", width=1, height=1, bitrate_bps=1, fps_num=30), "fullProfiles"),
        (Profile(name="a", width=1, height=1, bitrate_bps=1, container="mp4"), "fullProfiles2"),
        (Profile(name="a", width=1, height=1, bitrate_bps=1, fps_den=1001), "fullProfiles3"),
        (Profile(name="a", width=1, height=1, bitrate_bps=1, gop_ms=-1), "fullProfiles3"),
        (
            Profile(name="a", width=1, height=1, bitrate_bps=1, h264_profile=H264Profile.MAIN),
            "fullProfiles3",
        ),
    ],
)
def test_the_oldest_list_that_can_say_it_is_used(profile: Profile, field: str) -> None:
    """Profiles go into list 33, 34 or 35 by what a reader must understand."""
    segment = Segment(seq=0, duration_ms=2000, profiles=(PROFILE, profile))
    task = Notification(url="https://x/y", session="s", segment=segment)
    message = pb.NotifySegment.FromString(encode_notification(task))
    lists = ("fullProfiles", "fullProfiles2", "fullProfiles3")
    assert [name for name in lists if len(getattr(message.segData, name))] == [field]


def test_the_newest_list_is_read() -> None:
    """Where several lists are filled, 35 wins over 34 and 34 over 33."""
    message = pb.NotifySegment.FromString(encode_notification(TASK))
    message.segData.fullProfiles2.add(name="two", width=2, height=2, bitrate=2)
    assert _profile_names(message) == ["two"]
    message.segData.fullProfiles3.add(name="three", width=2, height=2, bitrate=2)
    assert _profile_names(message) == ["three"]


def _profile_names(message: pb.NotifySegment) -> list[str]:
    segment = decode_notification(message.SerializeToString()).segment
    assert segment is not None
    return [profile.name for profile in segment.profiles]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"url": "ftp://x/y"}, "http or https"),
        ({"url": "https://" + "x" * 5000}, "URL is too long"),
        ({"taskId": -1}, "task id is negative"),
        ({"segData.duration": -1}, "duration"),
        ({"segData.duration": 300_001}, "duration"),
        ({"segData.manifestId": b"m" * 1025}, "manifest id is too long"),
        ({"segData.auth_token.session_id": ""}, "session id is missing"),
        ({"segData.auth_token.session_id": "a\nb"}, "control characters"),
        ({"segData.auth_token.session_id": "s" * 256}, "longer than 255"),
        ({"segData.segment_parameters.to": 5, "segData.segment_parameters.from": 5}, "clip"),
        ({"segData.capabilities.bitstring": [1] * 17}, "too many capability words"),
        ({"segData.fullProfiles": 11}, "1 to 10 profiles"),
        ({"segData.fullProfiles": 0}, "1 to 10 profiles"),
        ({"profile.name": ""}, "profile name is missing"),
        ({"profile.name": "n" * 256}, "longer than 255"),
        ({"profile.width": -1}, "size is out of range"),
        ({"profile.height": 20_000}, "size is out of range"),
        ({"profile.bitrate": -1}, "bitrate is negative"),
        ({"profile.gop": -2}, "GOP"),
        ({"profile.format": 2}, "unrecognized profile output format"),
        ({"profile.profile": 5}, "unrecognized encoder profile"),
        ({"profile.encoder": 4}, "unrecognized video codec"),
    ],
)
def test_a_task_that_breaks_a_limit_can_still_be_answered(
    changes: dict[str, object], sentence: str
) -> None:
    """One sentence says what is wrong, and the task's id comes along for the answer."""
    message = pb.NotifySegment.FromString(encode_notification(TASK))
    for path, value in changes.items():
        _change(message, path, value)
    with pytest.raises(BadTask, match=sentence) as caught:
        decode_notification(message.SerializeToString())
    assert caught.value.task_id == message.taskId


def _change(message: pb.NotifySegment, path: str, value: object) -> None:
    *way, name = path.split(".")
    target: object = message
    for step in way:
        target = message.segData.fullProfiles[0] if step == "profile" else getattr(target, step)
    if name == "fullProfiles":
        assert isinstance(value, int)
        kept = message.segData.fullProfiles[0]
        del message.segData.fullProfiles[:]
        message.segData.fullProfiles.extend([kept] * value)
    elif isinstance(value, list):
        getattr(target, name).extend(value)
    else:
        setattr(target, name, value)


def test_a_message_without_task_and_session_is_refused() -> None:
    """Nothing can be answered to an empty notification."""
    with pytest.raises(BadMessage, match="session id is missing") as caught:
        decode_notification(b"")
    assert not isinstance(caught.value, BadTask)


def test_overlong_messages_are_not_even_parsed() -> None:
    """A message over 1 MiB is refused by its size."""
    huge = pb.RegisterRequest(secret="s" * MESSAGE_BYTES_MAX, capacity=1).SerializeToString()
    with pytest.raises(BadMessage, match="1 MiB"):
        decode_register(huge)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"secret": "s" * 1025}, "secret is too long"),
        ({"capacity": 1_000_001}, "capacity is over"),
        ({"capabilities": pb.Capabilities(version="v" * 256)}, "version is longer"),
        ({"capabilities": pb.Capabilities(bitstring=[1] * 17)}, "capability words"),
    ],
)
def test_a_registration_that_breaks_a_limit_is_refused(
    changes: dict[str, object], sentence: str
) -> None:
    """One sentence says which limit."""
    fields: dict[str, object] = {"secret": "s", "capacity": 1} | changes
    data = pb.RegisterRequest(**fields).SerializeToString()  # type: ignore[arg-type]  # by table
    with pytest.raises(BadMessage, match=sentence):
        decode_register(data)


def test_a_manifest_is_harmless_text() -> None:
    """Bytes that are no text, or control a terminal, become visible escapes."""
    message = pb.NotifySegment.FromString(encode_notification(TASK))
    message.segData.manifestId = b"../\x1b[2Jx\xff\n"
    assert decode_notification(message.SerializeToString()).manifest == r"../\x1b[2Jx\xff\n"


def test_capability_words_are_lowest_first() -> None:
    """Bit 64 is bit 0 of the second word."""
    assert capability_words(1 << 64 | 0b101) == [0b101, 1]
    assert capability_bits([0b101, 1]) == 1 << 64 | 0b101
    assert capability_words(0) == []
