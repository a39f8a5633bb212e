"""Segments that customers post to the pool's own API: what they may ask for, and what they get.

Pure rules and values. What a segment is worth is decided like every job's (`core.books`); how it
gets to workers is in `pool.direct_video`.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from openpool.core.capabilities import Capability, bit_set
from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage
from openpool.core.geometry import MAX_RENDITIONS
from openpool.core.model import Container, Profile

DIRECT = "direct"
"""Stands where an orchestrator's name would; no orchestrator may be called so."""
SESSION_CHARS_MAX = 100

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Side = Annotated[int, Meta(ge=16, le=8192)]


class _Asked(Struct, forbid_unknown_fields=True):
    """A rendition as a customer writes it down; `core.model.Profile` says what each field means."""

    name: Name
    width: Side
    height: Side
    bitrate_bps: Annotated[int, Meta(ge=1000, le=1_000_000_000)]
    fps_num: Annotated[int, Meta(ge=0, le=240_000)] = 0
    fps_den: Annotated[int, Meta(ge=1, le=1001)] = 1
    container: Container = "mpegts"
    gop_ms: Annotated[int, Meta(ge=-1, le=3_600_000)] = 0
    quality: Annotated[int, Meta(ge=0, le=51)] = 0


class Made(Struct, frozen=True, kw_only=True):
    """A rendition that was checked."""

    name: str
    container: Container
    width: int
    height: int
    data: bytes


def read_profiles(text: str) -> tuple[Profile, ...]:
    """The renditions that a JSON list asks for. Raises BadMessage."""
    if not text:
        raise BadMessage("Say which `profiles` you want: a JSON list, one object per rendition.")
    try:
        asked = msgspec.json.decode(text, type=list[_Asked])
    except msgspec.ValidationError as error:
        raise BadMessage(f"`profiles` is not valid: {error}.") from None
    except UNREADABLE:
        raise BadMessage("`profiles` is not valid JSON.") from None
    if not 1 <= len(asked) <= MAX_RENDITIONS:
        raise BadMessage(f"`profiles` asks for 1 to {MAX_RENDITIONS} renditions.")
    if len({each.name for each in asked}) < len(asked):
        raise BadMessage("`profiles` has two renditions of one name; give each its own.")
    return tuple(Profile(**msgspec.structs.asdict(each)) for each in asked)


def checked_session(text: str) -> str:
    """The same, if it can name a session. Raises BadMessage."""
    if len(text) > SESSION_CHARS_MAX or not text.isprintable():
        raise BadMessage(f"`session` is a name of up to {SESSION_CHARS_MAX} printable characters.")
    return text


def needs(profiles: Sequence[Profile]) -> int:
    """What a worker must be able to do for them, as a bit set (`core.capabilities`)."""
    bits = bit_set(Capability.H264)
    for profile in profiles:
        bits |= bit_set(Capability.MP4 if profile.container == "mp4" else Capability.MPEGTS)
        if profile.fps_den > 1:
            bits |= bit_set(Capability.FRACTIONAL_FRAMERATES)
        if profile.gop_ms:
            bits |= bit_set(Capability.GOP)
    return bits
