"""Whether measured renditions are what a job asked for: arithmetic only, no file is opened here.

Each rule gives one sentence about the result, or nothing. An honest rendition must never break a
rule, whatever the source is like; where a source is too damaged to tell, the rule is left out.
"""

from collections.abc import Callable, Sequence

import msgspec

from openpool.core.geometry import (
    MAX_RENDITIONS,
    MAX_SEGMENT_MS,
    MIN_RENDITION_BYTES,
    RUNAWAY_FACTOR,
    frames_expected,
    rendition_size,
)
from openpool.core.model import Codec, Profile, Rendition, Segment
from openpool.core.texts import plural
from openpool.pool.findings import Probe

CODEC_NAMES = {Codec.H264: "h264", Codec.H265: "hevc", Codec.VP8: "vp8", Codec.VP9: "vp9"}
START_SLACK_US = 100_000
START_SLACK_FRAMES = 4
"""A muxer that may not write negative decoding times shifts everything by the B-frame delay."""
BITRATE_FACTOR = 4
BITRATE_SLACK_BITS = 2_000_000
BITS_PER_PIXEL = 0.05
BITS_PER_KEY_PIXEL = 0.7
"""Below this a picture gets visibly worse; a key frame needs many times as much."""
POOR_QUALITY = 35
POOR_SLACK = 3.0
SLACK_MAX = 8.0
AUDIO_SLACK = 10
"""Sound packets that may be missing or damaged at the cuts, at most a quarter of them."""


def input_fault(source: Probe, segment: Segment) -> str:
    """Why no worker could transcode this, as gateways know the text; empty if one can."""
    if not segment.profiles:
        return "Invalid argument"
    if len(segment.profiles) > MAX_RENDITIONS:
        return "Too many outputs"
    if source.span_us > MAX_SEGMENT_MS * 1000 and source.tidy:
        return "TranscoderInvalidVideo"
    for profile in segment.profiles:
        try:
            rendition_size(profile, source.width, source.height)
        except ValueError:
            return "TranscoderInvalidResolution"
        except KeyError:
            return "Encoder not found"
    return ""


def as_asked(source: Probe, segment: Segment) -> Probe:
    """The source as far as the job wants it: whole, or clipped."""
    if not segment.clip_to_ms or not source.times_us:
        return source
    first = source.times_us[0]
    low, high = first + segment.clip_from_ms * 1000, first + segment.clip_to_ms * 1000
    times = tuple(time - low for time in source.times_us if low <= time <= high)
    return msgspec.structs.replace(source, frames=len(times), times_us=times)


def count_fault(segment: Segment, sizes: Sequence[int]) -> str:
    """What is wrong with the number and bulk of the renditions."""
    if len(sizes) != len(segment.profiles):
        found, wanted = plural(len(sizes), "rendition"), len(segment.profiles)
        return f"the result has {found} where {wanted} should be"
    for profile, size in zip(segment.profiles, sizes, strict=True):
        if size < MIN_RENDITION_BYTES:
            return f"rendition {profile.name!r} is empty ({size} bytes)"
    return ""


def form_fault(segment: Segment, source: Probe, found: Sequence[Probe]) -> str:
    """What is wrong with the kind of file, the size of the picture, the bulk or the sound."""
    for profile, each in zip(segment.profiles, found, strict=True):
        faults = (rule(profile, source, each) for rule in _FORM_RULES)
        if fault := next(filter(None, faults), "") or _audio(segment, source, each):
            return f"rendition {profile.name!r} {fault}"
    return ""


def timing_fault(segment: Segment, source: Probe, found: Sequence[Probe]) -> str:
    """What is wrong with the frames and their times."""
    wanted = as_asked(source, segment)
    for profile, each in zip(segment.profiles, found, strict=True):
        faults = (rule(segment, profile, wanted, each) for rule in _TIMING_RULES)
        if fault := next(filter(None, faults), ""):
            return f"rendition {profile.name!r} {fault}"
    return ""


def claim_fault(segment: Segment, found: Sequence[Probe], claims: Sequence[int]) -> str:
    """Whether a worker's own count of the pixels is a lie."""
    for profile, each, claim in zip(segment.profiles, found, claims, strict=True):
        if claim != each.pixels:
            return (
                f"rendition {profile.name!r} is claimed to have {claim} pixels; "
                f"it has {each.pixels}"
            )
    return ""


def picture_slack(profile: Profile, found: Probe) -> float:
    """How much worse than usual an honest picture may look, since it was given too few bits."""
    fps = 1_000_000 / found.interval_us if found.interval_us else 30.0
    if profile.bitrate_bps <= 0:
        return POOR_SLACK if profile.quality > POOR_QUALITY else 1.0
    keys = 1.0 if profile.gop_ms < 0 else 0.0
    if profile.gop_ms > 0:
        keys = min(1.0, 1000 / profile.gop_ms / fps)
    given = profile.bitrate_bps / (found.width * found.height * fps)
    needed = BITS_PER_PIXEL + (BITS_PER_KEY_PIXEL - BITS_PER_PIXEL) * keys
    return min(max(1.0, needed / given), SLACK_MAX)


def rendition(profile: Profile, found: Probe) -> Rendition:
    """The record of a rendition that passed."""
    return Rendition(
        name=profile.name,
        width=found.width,
        height=found.height,
        frames=found.frames,
        pixels=found.pixels,
        bytes=found.bytes,
        sha256=found.sha256,
    )


# --- form: what kind of file it is ----------------------------------------------------------------


def _container(profile: Profile, source: Probe, found: Probe) -> str:
    if found.container != profile.container:
        return f"is {found.container}; {profile.container} was asked for"
    return "" if found.whole else "is cut off in the middle of a transport packet"


def _codec(profile: Profile, source: Probe, found: Probe) -> str:
    asked = CODEC_NAMES[profile.codec]
    return "" if found.codec == asked else f"is encoded as {found.codec}; {asked} was asked for"


def _size(profile: Profile, source: Probe, found: Probe) -> str:
    width, height = rendition_size(profile, source.width, source.height)
    if (found.width, found.height) == (width, height):
        return ""
    return f"is {found.width}x{found.height}; it should be {width}x{height}"


def _key(profile: Profile, source: Probe, found: Probe) -> str:
    return "" if found.starts_with_key else "does not begin with a key frame"


def _bitrate(profile: Profile, source: Probe, found: Probe) -> str:
    if profile.bitrate_bps <= 0:
        return ""
    seconds = (found.span_us + found.interval_us) / 1_000_000 + 1
    allowed_bits = BITRATE_FACTOR * profile.bitrate_bps * seconds + BITRATE_SLACK_BITS
    if found.video_bytes * 8 <= allowed_bits:
        return ""
    return f"is far larger ({found.video_bytes} bytes) than {profile.bitrate_bps} bit/s"


_FORM_RULES: tuple[Callable[[Profile, Probe, Probe], str], ...] = (
    _container,
    _codec,
    _size,
    _key,
    _bitrate,
)


# --- sound: a copy of the source's ----------------------------------------------------------------


def _audio(segment: Segment, source: Probe, found: Probe) -> str:
    if segment.clip_to_ms:
        return ""
    copied = found.audio[0] if found.audio else ()
    candidates = [packets for packets in source.audio if packets] or [()]
    if any(_is_copy(original, copied) for original in candidates):
        return ""
    if not copied:
        return "has lost the sound"
    return "has a sound track that is not a copy of the source's"


def _is_copy(original: tuple[int, ...], copied: tuple[int, ...]) -> bool:
    slack = min(AUDIO_SLACK, max(2, len(original) // 4))
    missing, added = set(original) - set(copied), set(copied) - set(original)
    return (
        len(missing) <= slack
        and len(added) <= slack
        and abs(len(original) - len(copied)) <= slack
        and (bool(copied) or len(original) <= 2)
    )


# --- frames and times -----------------------------------------------------------------------------


def _frames(segment: Segment, profile: Profile, source: Probe, found: Probe) -> str:
    low, high = _frames_range(segment, profile, source)
    if low <= found.frames <= high:
        return ""
    expected = str(low) if low == high else f"{low} to {high}"
    return f"has {plural(found.frames, 'frame')} where {expected} should be"


def _frames_range(segment: Segment, profile: Profile, source: Probe) -> tuple[int, int]:
    if profile.fps_num and not source.tidy:
        return 1, source.frames * RUNAWAY_FACTOR
    if source.packets:  # damaged: what exactly is lost differs between decoders
        return min(source.frames, source.packets) - 2, max(source.frames, source.packets)
    low, high = frames_expected(profile, source.source_info(segment.duration_ms))
    if profile.fps_num:
        # How long the last frame lasts is a guess, and a bad one at a variable frame rate.
        from_span = source.span_us * profile.fps_num // (1_000_000 * profile.fps_den)
        low = max(1, min(low, from_span - 1))
    if segment.clip_to_ms:
        low, high = max(1, low - 1), high + 1
    return low, high


def _start(segment: Segment, profile: Profile, source: Probe, found: Probe) -> str:
    if not _has_comparable_times(source, found):
        return ""
    expected_us = 0 if segment.clip_to_ms else source.times_us[0]
    if expected_us < 0:  # the 33-bit clock of MPEG-TS wraps here; muxers differ
        return ""
    slack_us = START_SLACK_US + START_SLACK_FRAMES * _interval_us(profile, source, found)
    if abs(found.times_us[0] - expected_us) <= slack_us:
        return ""
    return f"starts at {found.times_us[0] // 1000} ms; the source at {expected_us // 1000} ms"


def _span(segment: Segment, profile: Profile, source: Probe, found: Probe) -> str:
    if not _has_comparable_times(source, found):
        return ""
    last_frame_us = source.last_gap_us or segment.duration_ms * 1000
    slack_us = 2 * max(last_frame_us, _interval_us(profile, source, found)) + 2_000
    if abs(found.span_us - source.span_us) <= slack_us:
        return ""
    return f"spans {found.span_us // 1000} ms; the source {source.span_us // 1000} ms"


def _interval_us(profile: Profile, source: Probe, found: Probe) -> int:
    """The longest time between frames that source and rendition are made for."""
    asked_us = 1_000_000 * profile.fps_den // profile.fps_num if profile.fps_num else 0
    return max(source.interval_us, found.interval_us, asked_us)


_TIMING_RULES: tuple[Callable[[Segment, Profile, Probe, Probe], str], ...] = (
    _frames,
    _start,
    _span,
)


def _has_comparable_times(source: Probe, found: Probe) -> bool:
    return source.tidy and bool(source.times_us) and bool(found.times_us)
