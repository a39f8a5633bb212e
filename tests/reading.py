"""Reads a media file as a stranger would: with demuxer and decoder, trusting no number in it."""

import io
from dataclasses import dataclass, field

import av

NAL_SPS = 7


@dataclass
class Reading:
    """What is in a file."""

    pts: list[int] = field(default_factory=list)
    """When each picture is shown, in 1/90000 s, in order."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    video_dts: list[int] = field(default_factory=list)
    video_bytes: int = 0
    audio: list[tuple[int, bytes]] = field(default_factory=list)
    """Time in 1/90000 s and bytes of each audio packet."""
    order: list[str] = field(default_factory=list)
    """Kinds of the streams."""
    metadata: dict[str, str] = field(default_factory=dict)
    codec: str = ""
    pixel_aspect: str = ""
    sps: bytes = b""

    @property
    def pixels(self) -> int:
        """Decoded pixels."""
        return sum(width * height for width, height in self.sizes)


def read(data: bytes) -> Reading:
    """Demux and decode everything."""
    reading = Reading()
    known = "mpegts" if data[:1] == b"G" else None  # FFmpeg does not recognise very short ones
    with av.open(io.BytesIO(data), format=known) as container:
        reading.order = [stream.type for stream in container.streams]
        reading.metadata = dict(container.metadata)
        video = container.streams.video[0]
        reading.codec = video.codec_context.name
        reading.pixel_aspect = str(video.sample_aspect_ratio)
        for packet in container.demux():
            if packet.stream.type == "audio" and packet.size:
                reading.audio.append((_ticks(packet.pts, packet), bytes(packet)))
            elif packet.stream.type == "video":
                if packet.size:
                    reading.video_dts.append(_ticks(packet.dts, packet))
                    reading.video_bytes += packet.size
                    reading.sps = reading.sps or _sps(bytes(packet))
                for frame in packet.decode():
                    reading.pts.append(round(frame.pts * video.time_base * 90_000))
                    reading.sizes.append((frame.width, frame.height))
                    reading.keys.append(frame.key_frame)
    return reading


def _ticks(value: int, packet: av.Packet) -> int:
    return round(value * packet.time_base * 90_000)


def _sps(packet: bytes) -> bytes:
    """The first sequence parameter set after a start code, from its profile byte on."""
    for part in packet.split(b"\x00\x00\x01")[1:]:
        if part and part[0] & 0x1F == NAL_SPS:
            return part[1:]
    return b""
