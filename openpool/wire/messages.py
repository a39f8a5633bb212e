"""The messages of the registration stream: protobuf ⇄ core values, with every limit checked.

See docs/protocol.md for the fields. `encode` and `decode` are inverse on all that is carried.
Nothing here does I/O, and nothing that a peer sends raises anything but `BadMessage`.
"""

from collections.abc import Sequence

from msgspec import Struct

from openpool.core.errors import BadMessage
from openpool.core.model import Codec, Container, H264Profile, Profile, Segment
from openpool.wire import livepeer_pb2 as pb
from openpool.wire.reading import check, parsed

PROFILES_MAX = 10
NAME_CHARS_MAX = 255
MANIFEST_BYTES_MAX = 1024
URL_CHARS_MAX = 4096
SECRET_CHARS_MAX = 1024
DURATION_MS_MAX = 300_000
CAPACITY_MAX = 1_000_000
SIDE_PIXELS_MAX = 16_384
CAPABILITY_WORDS_MAX = 16

_UNUSED_PROFILES = b"invalid"
_CONTAINERS: tuple[Container, ...] = ("mpegts", "mp4")
_WORD = (1 << 64) - 1


class RegisterRequest(Struct, frozen=True, kw_only=True):
    """A transcoder offers itself."""

    secret: str
    capacity: int
    """Sessions at once. Zero or less is readable; refusing it is up to the receiver."""
    capabilities: int | None
    """Bit set, or None where the message was absent: then defaults and our version are assumed."""
    version: str = ""


class Notification(Struct, frozen=True, kw_only=True):
    """A task (`url` set), the end of a session (`url` empty), or a cancelled task."""

    url: str = ""
    task_id: int = 0
    session: str = ""
    """Session id as the receiver knows it; a worker's is opaque."""
    manifest: str = ""
    segment: Segment | None = None
    cancelled_task_id: int | None = None


class BadTask(BadMessage):
    """The task cannot be read, but its id can: it should be answered with this error."""

    code = "bad-task"

    def __init__(self, task_id: int, message: str) -> None:
        super().__init__(message)
        self.task_id = task_id


def encode_register(request: RegisterRequest) -> bytes:
    """Bytes of a RegisterRequest; without capabilities the whole message for them is left out."""
    message = pb.RegisterRequest(secret=request.secret, capacity=request.capacity)
    if request.capabilities is not None:
        message.capabilities.bitstring.extend(capability_words(request.capabilities))
        for number in range(request.capabilities.bit_length()):
            if request.capabilities >> number & 1:
                message.capabilities.capacities[number] = 1
        message.capabilities.version = request.version
    return message.SerializeToString()


def decode_register(data: bytes) -> RegisterRequest:
    """Read a RegisterRequest; BadMessage if it is none or breaks a limit."""
    message = parsed(pb.RegisterRequest, data)
    check(len(message.secret) <= SECRET_CHARS_MAX, "the secret is too long")
    check(message.capacity <= CAPACITY_MAX, f"the capacity is over {CAPACITY_MAX}")
    given = message.HasField("capabilities")
    return RegisterRequest(
        secret=message.secret,
        capacity=message.capacity,
        capabilities=capability_bits(message.capabilities.bitstring) if given else None,
        version=_text(message.capabilities.version, "version"),
    )


def encode_notification(notification: Notification) -> bytes:
    """Bytes of a NotifySegment: a task, a teardown, or (for our own workers) a cancelled task.

    ValueError if a task or a teardown has no session: a stock worker would crash without one.
    """
    if notification.cancelled_task_id is not None:
        return pb.NotifySegment(cancelTaskId=notification.cancelled_task_id).SerializeToString()
    if not notification.session:
        raise ValueError("a notification needs a session")
    message = pb.NotifySegment()
    message.segData.auth_token.session_id = notification.session
    if notification.url:
        _write_task(notification, message)
    return message.SerializeToString()


def decode_notification(data: bytes) -> Notification:
    """Read a NotifySegment; `BadTask` if it is a task with an id, else BadMessage, if it is bad."""
    message = parsed(pb.NotifySegment, data)
    if message.HasField("cancelTaskId"):
        return Notification(cancelled_task_id=message.cancelTaskId)
    try:
        session = _name(message.segData.auth_token.session_id, "session id")
        if not message.url:
            return Notification(session=session)
        return _read_task(message, session)
    except BadMessage as error:
        if not message.url:
            raise
        raise BadTask(message.taskId, str(error)) from None


def capability_words(bits: int) -> list[int]:
    """A capability set as 64-bit words, lowest first."""
    return [bits >> shift & _WORD for shift in range(0, bits.bit_length(), 64)]


def capability_bits(words: Sequence[int]) -> int:
    """A capability set from its 64-bit words; BadMessage if there are absurdly many."""
    check(len(words) <= CAPABILITY_WORDS_MAX, "there are too many capability words")
    return sum(word << 64 * index for index, word in enumerate(words))


def _write_task(notification: Notification, message: pb.NotifySegment) -> None:
    segment = notification.segment
    if segment is None:
        raise ValueError("a task needs a segment")
    message.url = notification.url
    message.taskId = notification.task_id
    message.profiles = _UNUSED_PROFILES
    message.orchId = segment.orchestrator_address
    data = message.segData
    data.manifestId = notification.manifest.encode()
    data.seq = segment.seq
    data.hash = bytes(32)
    data.profiles = _UNUSED_PROFILES
    data.duration = segment.duration_ms
    data.capabilities.bitstring.extend(capability_words(segment.capabilities))
    if segment.min_version:
        data.capabilities.constraints.minVersion = segment.min_version
    data.calc_perceptual_hash = segment.perceptual_hash
    data.ForceSessionReinit = segment.reinit
    if segment.clip_to_ms:
        setattr(data.segment_parameters, "from", segment.clip_from_ms)
        data.segment_parameters.to = segment.clip_to_ms
    _write_profiles(segment.profiles, data)


def _write_profiles(profiles: Sequence[Profile], data: pb.SegData) -> None:
    """Old readers know fewer fields, so the list used says what must be understood."""
    written = [_write_profile(profile) for profile in profiles]
    if any(p.fpsDen or p.profile or p.gop for p in written):
        data.fullProfiles3.extend(written)
    elif any(p.format for p in written):
        data.fullProfiles2.extend(written)
    else:
        data.fullProfiles.extend(written)


def _write_profile(profile: Profile) -> pb.VideoProfile:
    return pb.VideoProfile(
        name=profile.name,
        width=profile.width,
        height=profile.height,
        bitrate=profile.bitrate_bps,
        fps=profile.fps_num,
        fpsDen=profile.fps_den if profile.fps_den != 1 else 0,
        format=pb.VideoProfile.Format.Name(_CONTAINERS.index(profile.container)),
        profile=pb.VideoProfile.Profile.Name(profile.h264_profile),
        gop=profile.gop_ms,
        encoder=pb.VideoProfile.VideoCodec.Name(profile.codec),
        quality=profile.quality,
    )


def _read_task(message: pb.NotifySegment, session: str) -> Notification:
    data = message.segData
    check(message.taskId >= 0, "the task id is negative")
    check(len(message.url) <= URL_CHARS_MAX, "the URL is too long")
    check(message.url.startswith(("https://", "http://")), "the URL is not http or https")
    check(len(data.manifestId) <= MANIFEST_BYTES_MAX, "the manifest id is too long")
    return Notification(
        url=message.url,
        task_id=message.taskId,
        session=session,
        manifest=_printable(data.manifestId.decode(errors="backslashreplace")),
        segment=_read_segment(data, _text(message.orchId, "orchestrator address")),
    )


def _read_segment(data: pb.SegData, orchestrator_address: str) -> Segment:
    check(0 <= data.duration <= DURATION_MS_MAX, "the duration is not 0 to 300 s")
    start_ms, end_ms = int(getattr(data.segment_parameters, "from")), data.segment_parameters.to
    check(end_ms == 0 or start_ms < end_ms, "the clip ends before it begins")
    profiles = data.fullProfiles3 or data.fullProfiles2 or data.fullProfiles
    check(0 < len(profiles) <= PROFILES_MAX, f"there are not 1 to {PROFILES_MAX} profiles")
    return Segment(
        seq=data.seq,
        duration_ms=data.duration,
        profiles=tuple(_read_profile(profile) for profile in profiles),
        capabilities=capability_bits(data.capabilities.bitstring),
        min_version=_text(data.capabilities.constraints.minVersion, "minimum version"),
        perceptual_hash=data.calc_perceptual_hash,
        clip_from_ms=start_ms if end_ms else 0,
        clip_to_ms=end_ms,
        reinit=data.ForceSessionReinit,
        orchestrator_address=orchestrator_address,
    )


def _read_profile(given: pb.VideoProfile) -> Profile:
    sides = (given.width, given.height)
    check(all(0 <= side <= SIDE_PIXELS_MAX for side in sides), "a profile's size is out of range")
    check(given.bitrate >= 0, "a profile's bitrate is negative")
    check(given.gop >= -1, "a profile's GOP is below -1")
    check(int(given.format) in range(2), "unrecognized profile output format")
    check(int(given.profile) in range(len(H264Profile)), "unrecognized encoder profile")
    check(int(given.encoder) in range(len(Codec)), "unrecognized video codec")
    return Profile(
        name=_name(given.name, "profile name"),
        width=given.width,
        height=given.height,
        bitrate_bps=given.bitrate,
        fps_num=given.fps,
        fps_den=given.fpsDen or 1,
        container=_CONTAINERS[given.format],
        h264_profile=H264Profile(given.profile),
        gop_ms=given.gop,
        codec=Codec(given.encoder),
        quality=given.quality,
    )


def _name(text: str, what: str) -> str:
    check(text != "", f"the {what} is missing")
    return _text(text, what)


def _text(text: str, what: str) -> str:
    check(len(text) <= NAME_CHARS_MAX, f"the {what} is longer than {NAME_CHARS_MAX} characters")
    check(text.isprintable(), f"the {what} contains control characters")
    return text


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
