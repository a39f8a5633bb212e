"""Recorded bytes: what go-livepeer sends is understood, whatever becomes of our code."""

import pytest

from openpool.core.model import Codec, H264Profile, Profile, Segment
from openpool.wire.messages import (
    Notification,
    RegisterRequest,
    decode_notification,
    decode_register,
    encode_notification,
)
from openpool.wire.results import RenditionData, build_result, parse_result
from tests.wire.recorded import GOLDEN, MESSAGES, RESULT, encode

P240 = Profile(name="P240p30fps16x9", width=426, height=240, bitrate_bps=600_000, fps_num=30)
P720_MP4 = Profile(
    name="720p",
    width=1280,
    height=720,
    bitrate_bps=3_000_000,
    fps_num=30_000,
    fps_den=1001,
    container="mp4",
    h264_profile=H264Profile.HIGH,
    gop_ms=2000,
    quality=23,
)
INTRA = Profile(name="intra", width=640, height=360, bitrate_bps=0, gop_ms=-1, codec=Codec.H265)


def notice(seq: int, task_id: int, *profiles: Profile, **more: object) -> Notification:
    segment = Segment(
        seq=seq,
        duration_ms=2000,
        profiles=profiles,
        capabilities=67_112_963,
        orchestrator_address="0x" + "5e" * 20,
        **more,  # type: ignore[arg-type]
    )
    return Notification(
        url=f"https://203.0.113.7:8935/stream/1a2b3c4d/{seq}.tempfile",
        task_id=task_id,
        session="1a2b3c4d",
        manifest="demo-stream",
        segment=segment,
    )


NOTIFICATIONS = {
    "notify-first": notice(17, 0, P240),
    "notify-mp4-clip-hash": notice(
        18,
        4711,
        P240,
        P720_MP4,
        INTRA,
        perceptual_hash=True,
        clip_from_ms=500,
        clip_to_ms=1500,
        reinit=True,
    ),
    "notify-mp4-plain": notice(
        19,
        2**41 + 5,
        P240,
        Profile(
            name=P240.name,
            width=426,
            height=240,
            bitrate_bps=600_000,
            fps_num=30,
            container="mp4",
        ),
    ),
    "notify-future": notice(20, 9, P240),
    "teardown": Notification(session="1a2b3c4d"),
    "cancel": Notification(cancelled_task_id=0),
}

REGISTRATIONS = {
    "register-software": RegisterRequest(
        secret="o-secret", capacity=10, capabilities=94_487_339_007, version="0.9.1"
    ),
    "register-bare": RegisterRequest(secret="o-secret", capacity=1, capabilities=None),
}


@pytest.mark.parametrize("name", NOTIFICATIONS)
def test_a_recorded_notification_is_understood(name: str) -> None:
    """Each recorded notification means what its description says, and can be said again."""
    read = decode_notification((GOLDEN / f"{name}.bin").read_bytes())
    assert read == NOTIFICATIONS[name]
    assert decode_notification(encode_notification(read)) == read


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_a_recorded_registration_is_understood(name: str) -> None:
    """Each recorded registration means what its description says."""
    assert decode_register((GOLDEN / f"{name}.bin").read_bytes()) == REGISTRATIONS[name]


@pytest.mark.parametrize("name", ["teardown", "cancel"])
def test_short_notifications_are_written_to_the_letter(name: str) -> None:
    """These have one spelling only, byte for byte."""
    assert encode_notification(NOTIFICATIONS[name]) == (GOLDEN / f"{name}.bin").read_bytes()


def test_a_recorded_result_is_read_and_written_to_the_letter() -> None:
    """A stock transcoder's body is understood, and ours is the same, byte for byte."""
    recorded = (GOLDEN / "result.bin").read_bytes()
    boundary = "94a1e3ff2a1f8f5cc4b1"
    renditions = parse_result(recorded, boundary.encode())
    assert renditions == [
        RenditionData(data=b"first\n", pixels=6_134_400, perceptual_hash=b"\0\0\0\1abc"),
        RenditionData(data=b"second", pixels=55_296_000, container="mp4"),
    ]
    assert b"".join(build_result(renditions, boundary).chunks) == recorded


def test_the_token_of_a_session_goes_no_further() -> None:
    """What an orchestrator's notification carries as a token is not in what we pass on."""
    given = (GOLDEN / "notify-first.bin").read_bytes()
    token = bytes(range(200, 232))
    assert token in given
    assert token not in encode_notification(decode_notification(given))


def test_the_recordings_are_what_their_description_says() -> None:
    """No recorded file was edited, forgotten or left over."""
    files = {path.stem: path.read_bytes() for path in GOLDEN.glob("*.bin")}
    assert files.pop("result") == RESULT
    assert files == {name: encode(fields) for name, fields in MESSAGES.items()}
    assert set(files) == NOTIFICATIONS.keys() | REGISTRATIONS.keys()
