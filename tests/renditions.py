"""Makes renditions for the tests of the verifier: honest ones, and every kind of cheat."""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import PictureType

from openpool.wire.results import RenditionData

Frames = list[av.VideoFrame]


@dataclass(slots=True)
class Recipe:
    """How to make one rendition of a source."""

    width: int = 160
    height: int = 90
    container: str = "mpegts"
    encoder: str = "libx264"
    fps: Fraction | None = None
    audio: bool = True
    start_shift_s: Fraction = Fraction(0)
    change: Callable[[Frames], Frames] = field(default=lambda frames: frames)
    options: dict[str, str] = field(default_factory=dict)

    def make(self, source: bytes) -> bytes:
        """The file."""
        buffer = io.BytesIO()
        with av.open(io.BytesIO(source)) as container, av.open(buffer, "w", self.container) as out:
            video = out.add_stream(self.encoder, rate=self.fps or 30)
            video.width, video.height, video.pix_fmt = self.width, self.height, "yuv420p"
            options = {"preset": "ultrafast", "g": "250", **self.options}
            video.codec_context.options = options
            tick = 1 / self.fps if self.fps else Fraction(1, 90_000)
            video.codec_context.time_base = tick
            sounds = container.streams.audio if self.audio else ()
            copies = {s.index: out.add_stream_from_template(s) for s in sounds}
            packets = list(_packets(container))
            frames = [frame for packet in packets for frame in self._frames(packet)]
            for frame in self.change(self._scaled(frames)):
                frame.pts += round(self.start_shift_s / frame.time_base)
                frame.pict_type = PictureType.NONE
                out.mux(video.encode(frame))
            out.mux(video.encode(None))
            for packet in packets:
                if packet.size and packet.stream.index in copies:
                    packet.stream = copies[packet.stream.index]
                    out.mux(packet)
        return buffer.getvalue()

    def upload(self, source: bytes) -> RenditionData:
        """The file, with a true claim."""
        data = self.make(source)
        return RenditionData(data=data, pixels=self.width * self.height * count_frames(data))

    def _frames(self, packet: Any) -> Iterable[av.VideoFrame]:
        if packet.stream.type != "video":
            return []
        try:
            return packet.decode()
        except av.error.InvalidDataError:
            return []

    def _scaled(self, frames: Frames) -> Frames:
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frames[0].width,
            height=frames[0].height,
            format=frames[0].format.name,
            time_base=frames[0].time_base,
        )
        nodes = [source, graph.add("scale", f"{self.width}:{self.height}")]
        nodes += [graph.add("fps", str(self.fps))] if self.fps else []
        graph.link_nodes(*nodes, graph.add("format", "yuv420p"), graph.add("buffersink"))
        graph.configure()
        for frame in frames:
            frame.duration = 0
            graph.vpush(frame)
        graph.vpush(None)
        return list(_pull(graph))


def _packets(container: InputContainer) -> Iterator[Packet]:
    try:
        yield from container.demux()
    except IndexError:
        return  # PyAV stumbles over a stream that begins in the middle; all is read by then


def _pull(graph: av.filter.Graph) -> Iterable[av.VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.error.EOFError, av.error.BlockingIOError):
            return


def count_frames(data: bytes) -> int:
    """Frames that a decoder gets out of a file, as a gateway counts them."""
    with av.open(io.BytesIO(data)) as container:
        return sum(1 for _ in container.decode(video=0))


def drop_packets(data: bytes, unwanted: Callable[[int], bool]) -> bytes:
    """A source without some of its video packets, by their rank: damaged, or at uneven times."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as container, av.open(buffer, "w", "mpegts") as out:
        copies = {s.index: out.add_stream_from_template(s) for s in container.streams}
        rank = -1
        for packet in container.demux():
            if not packet.size:
                continue
            rank += packet.stream.type == "video"
            if packet.stream.type == "video" and unwanted(rank):
                continue
            packet.stream = copies[packet.stream.index]
            out.mux(packet)
    return buffer.getvalue()
