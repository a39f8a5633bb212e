"""What comes out of the core, and the two things its parts share: the outbox and the timers."""

import heapq
from collections.abc import Callable

from msgspec import Struct

from openpool.core.call_instructions import CallInstruction
from openpool.core.events import AnyPayload, Event
from openpool.core.instructions import Instruction


class Step(Struct, kw_only=True):
    """The answer to one fact. The events are appended first, then the instructions performed."""

    instructions: list[Instruction | CallInstruction]
    events: list[Event]


class Outbox:
    """Collects a step. `now_ms` is the time of the fact being handled."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.now_ms = 0
        self._step = Step(instructions=[], events=[])
        self._serial = 0

    def do(self, instruction: Instruction | CallInstruction) -> None:
        """Tell the shell to do something."""
        self._step.instructions.append(instruction)

    def note(self, event_id: str, data: AnyPayload) -> None:
        """Record a fact. The id is made from the fact, so that the log keeps it once."""
        self._step.events.append(Event(id=event_id, time_ms=self.now_ms, data=data))

    def serial(self) -> str:
        """A number for facts that have none of their own; unique over restarts."""
        self._serial += 1
        return f"{self.epoch}-{self._serial}"

    def take(self) -> Step:
        """The step so far; the next one begins."""
        step, self._step = self._step, Step(instructions=[], events=[])
        return step


class Timer:
    """Something to be done later, unless cancelled."""

    __slots__ = ("action", "when_ms")

    def __init__(self, when_ms: int, action: Callable[[], None]) -> None:
        self.when_ms = when_ms
        self.action: Callable[[], None] | None = action


class Timers:
    """What is to be done when. Cancelled timers cost nothing but memory, and that not long."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._count = 0
        self._cancelled = 0

    def at(self, when_ms: int, action: Callable[[], None]) -> Timer:
        """Have `action` called at `when_ms` or soon after."""
        timer = Timer(when_ms, action)
        self._count += 1
        heapq.heappush(self._heap, (when_ms, self._count, timer))
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Forget a timer; one that has fired, or None, is no error."""
        if timer is None or timer.action is None:
            return
        timer.action = None
        self._cancelled += 1
        if self._cancelled > 1000 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_ms(self) -> int | None:
        """When the next timer is due; None if there is none."""
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
            self._cancelled -= 1
        return heap[0][0] if heap else None

    def run(self, now_ms: int) -> None:
        """Call what is due, in the order of time."""
        while (when_ms := self.next_ms()) is not None and when_ms <= now_ms:
            _, _, timer = heapq.heappop(self._heap)
            action, timer.action = timer.action, None
            assert action is not None
            action()

    def pending(self) -> int:
        """Timers that will fire."""
        return len(self._heap) - self._cancelled
