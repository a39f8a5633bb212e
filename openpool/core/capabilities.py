"""What a worker can do and what a job needs, as bit sets, and the version rule that goes with them.

Bit n of a set stands for go-livepeer's capability number n. A set is one `int`; splitting it into
the 64-bit words of the wire is `openpool.wire`'s business. See docs/protocol.md, "Capabilities".
"""

import re
from enum import IntEnum
from functools import lru_cache

COMPATIBLE_VERSION = "0.9.1"
"""The go-livepeer version that our own worker stands for, and a group without a better one."""

_SEMVER = re.compile(r"v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:[-+][0-9A-Za-z.+-]*)?")

Version = tuple[int, int, int]


class Capability(IntEnum):
    """Capability numbers of video work; AI work has numbers from 27 on."""

    H264 = 0
    MPEGTS = 1
    MP4 = 2
    FRACTIONAL_FRAMERATES = 3
    STORAGE_DIRECT = 4
    STORAGE_S3 = 5
    STORAGE_GCS = 6
    H264_BASELINE = 7
    H264_MAIN = 8
    H264_HIGH = 9
    H264_CONSTRAINED_HIGH = 10
    GOP = 11
    AUTH_TOKEN = 12
    SCENE_CLASSIFICATION = 13
    MPEG7_SIGNATURE = 14
    HEVC_DECODE = 15
    HEVC_ENCODE = 16
    VP8_DECODE = 17
    VP9_DECODE = 18
    VP8_ENCODE = 19
    VP9_ENCODE = 20
    H264_DECODE_444_8BIT = 21
    H264_DECODE_422_8BIT = 22
    H264_DECODE_444_10BIT = 23
    H264_DECODE_422_10BIT = 24
    H264_DECODE_420_10BIT = 25
    SEGMENT_SLICING = 26


def bit_set(*numbers: int) -> int:
    """The set holding these capability numbers."""
    bits = 0
    for number in numbers:
        bits |= 1 << number
    return bits


DEFAULT = bit_set(*range(13), Capability.MPEG7_SIGNATURE, Capability.SEGMENT_SLICING)
"""What is assumed of a worker that sends no capabilities: 0-12, 14 and 26."""

TRANSCODING = (1 << 27) - 1
"""Numbers 0-26. Stock workers claim AI numbers too, untested; a pool must not pass those on."""


def transcoding(bits: int) -> int:
    """The part of a set that is about transcoding: what may be registered upstream."""
    return bits & TRANSCODING


def fits(job_bits: int, worker_bits: int) -> bool:
    """Whether a worker can do everything that the job needs."""
    return job_bits & ~worker_bits == 0


def missing(job_bits: int, worker_bits: int) -> list[str]:
    """Names of what the job needs and the worker lacks."""
    return names(job_bits & ~worker_bits)


def names(bits: int) -> list[str]:
    """Readable names of a set, lowest number first: `["h264", "mpegts"]`."""
    return [_name(number) for number in range(bits.bit_length()) if bits >> number & 1]


def _name(number: int) -> str:
    try:
        return Capability(number).name.lower().replace("_", "-")
    except ValueError:
        return f"capability-{number}"


@lru_cache(maxsize=1024)
def parse_version(text: str) -> Version | None:
    """(major, minor, patch) of `0.9.1`, `v0.9` or `0.9.1-abc`; None for anything else.

    A pre-release suffix is ignored, as go-livepeer does.
    """
    match = _SEMVER.fullmatch(text)
    if match is None:
        return None
    major, minor, patch = (int(part or 0) for part in match.groups())
    return major, minor, patch


def version_ok(version: str, min_version: str) -> bool:
    """Whether a worker of `version` may do a job that demands `min_version`.

    No demand is always met; an unknown version meets no demand; a demand that nobody can read is
    no demand.
    """
    if not min_version:
        return True
    have = parse_version(version)
    if have is None:
        return False
    want = parse_version(min_version)
    return want is None or have >= want


def lowest_version(versions: list[str]) -> str:
    """The lowest of the versions that can be read, or `COMPATIBLE_VERSION` if none can."""
    readable = [text for text in versions if parse_version(text) is not None]
    return min(
        readable, key=lambda text: parse_version(text) or (0, 0, 0), default=COMPATIBLE_VERSION
    )
