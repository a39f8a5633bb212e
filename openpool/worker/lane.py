"""Makes one rendition in a thread of its own, so that renditions are made side by side.

Codecs do their work outside Python's lock. The queue in front of a lane is short: the decoder
waits for the slowest encoder, and memory stays bounded. Next: `worker.output`.
"""

import queue
import threading
from collections.abc import Callable
from functools import partial

from av.video.frame import VideoFrame

from openpool.worker.output import Output
from openpool.worker.source import AudioPacket
from openpool.worker.terms import EncodedRendition

QUEUE_MAX = 6


class Lane:
    """An output and its thread. What goes wrong there is raised by the next call here."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(QUEUE_MAX)
        self._error: BaseException | None = None
        self._rendition: EncodedRendition | None = None
        self._thread = threading.Thread(target=self._run, name="rendition", daemon=True)
        self._thread.start()

    def add_frame(self, frame: VideoFrame, frames_max: int) -> None:
        """Encode a frame; see `Output`. The frame must not change any more."""
        self._do(partial(self._output.add_frame, frame, frames_max))

    def add_audio(self, packet: AudioPacket) -> None:
        """Copy an audio packet, which must not change any more."""
        self._do(partial(self._output.add_audio, packet))

    def end(self, frames_max: int) -> None:
        """Nothing more comes: finish the file."""

        def finish() -> None:
            self._rendition = self._output.finish(frames_max)

        self._do(finish)

    def result(self) -> EncodedRendition:
        """The finished rendition, after `end`."""
        self.stop()
        if self._error:
            raise self._error
        assert self._rendition
        return self._rendition

    def stop(self) -> None:
        """Let the thread end after what it has been given. May be called twice."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _do(self, work: Callable[[], None]) -> None:
        if self._error:
            raise self._error
        self._queue.put(work)

    def _run(self) -> None:
        while work := self._queue.get():
            if self._error is None:
                try:
                    work()
                except Exception as error:  # raised again by the next call
                    self._error = error
