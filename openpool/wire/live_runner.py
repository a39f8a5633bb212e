"""The JSON of Live Runner: what a runner and its orchestrator say to each other.

A *runner* is one app at one address, registered with an orchestrator, which sells *sessions* on it
and passes its customers' requests on. Field names are the wire's; see docs/protocol.md. Everything
an orchestrator sends is read with a limit, and a bad answer is a `BadMessage`.
"""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage

HEARTBEAT_PATH = "/runners/heartbeat"
REPLY_BYTES_MAX = 1 << 20
ROUTE_HEADER = "Livepeer-Runner-Route"
SESSION_HEADER = "Livepeer-Session-Id"
TOKEN_HEADER = "Livepeer-Session-Token"  # noqa: S105 - the name of a header
CONTROL_HEADER = "Livepeer-Session-Control"

Mode = Literal["persistent", "single-shot"]
PriceUnit = Literal["hour", "720p", "fixed"]

_encoder = msgspec.json.Encoder(decimal_format="number")
_Value = TypeVar("_Value")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)", re.ASCII)
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class Gpu(Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str = ""
    name: str = ""
    vram_mb: int = 0


class PriceInfo(Struct, frozen=True, kw_only=True):
    """What a session costs: US dollars for each (`fixed`), or for each hour of it."""

    price: Decimal
    currency: str = "usd"
    unit: PriceUnit = "hour"


class Heartbeat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A runner registers, or says that it is still there. `capacity` 0 would be read as 1."""

    runner_url: str
    app: str
    runner_id: str = ""
    label: str = ""
    version: str = ""
    metadata: str = ""
    status: str = ""
    mode: str = "persistent"
    capacity: int = 0
    gpu: Gpu | None = None
    price_info: PriceInfo | None = None
    session_ids: list[str] = []


class Channel(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A trickle channel; who knows its URL may use it."""

    name: str = ""
    channel_name: str = ""
    url: str
    internal_url: str = ""
    mime_type: str = ""


class HeartbeatReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The secret and the channel come with the first answer only."""

    runner_id: str
    orchestrator: str = ""
    heartbeat_interval: str = ""
    heartbeat_ttl: str = ""
    heartbeat_secret: str = ""
    o2r: Channel | None = None
    session_ids: list[str] | None = None


class SessionEvent(Struct, frozen=True, kw_only=True):
    """One message of the o2r channel. Keep-alives have no event."""

    event: str = ""
    session: str = ""
    timestamp: str = ""


class ChannelWish(Struct, frozen=True, kw_only=True):
    name: str
    mime_type: str = ""


class ChannelWishes(Struct, frozen=True, kw_only=True):
    """`POST {session control}/channels`."""

    channels: list[ChannelWish]


class Channels(Struct, frozen=True, kw_only=True):
    """The answer to it."""

    channels: list[Channel]


def encode(value: Struct) -> bytes:
    return _encoder.encode(value)


def decode(data: bytes, kind: type[_Value], what: str) -> _Value:
    """Read JSON; BadMessage if it is none, or not of this shape."""
    if len(data) > REPLY_BYTES_MAX:
        raise BadMessage(f"{what} is longer than {REPLY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise BadMessage(f"{what} cannot be read: {error}") from None


def read_duration(text: str, default: timedelta) -> timedelta:
    """A duration as Go writes it (`5s`, `1m0s`, `500ms`); `default` if it is none, negative, or
    longer than there is time."""
    parts = _DURATION.findall(text[:64])
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return default
    try:
        return timedelta(seconds=sum(float(number) * _UNIT_S[unit] for number, unit in parts))
    except OverflowError:
        return default
