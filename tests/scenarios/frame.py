"""What the languages of all scenarios share: time, the log, and the story that is told.

One line is one fact, and what follows from it is told in lines. A command is a time in ms, a verb,
a name, and `key=value` or plain words. Before each command, the core is woken as often as it asked
for until then. A play adds its verbs as `do_…`, and says events and instructions in words.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from openpool.core.events import Event
from openpool.core.facts import Tick


class Step(Protocol):
    """What a core answers to a fact."""

    @property
    def events(self) -> Iterable[Event]: ...
    @property
    def instructions(self) -> Iterable[Any]: ...


class Core(Protocol):
    """A pool or a desk."""

    def handle(self, fact: Any, now_ms: int) -> Step: ...
    def wake_at(self) -> int | None: ...
    def check(self) -> None: ...
    def explain(self, worker: str, now_ms: int) -> Iterable[Any]: ...


class Frame:
    """Plays commands to a core and tells what happened."""

    def __init__(self) -> None:
        self.now = 0
        self.log: dict[str, Event] = {}
        self.story: list[str] = []
        self.quiet = False

    @property
    def core(self) -> Core:
        """Who is played to."""
        raise NotImplementedError

    def event(self, event: Event) -> str:
        """An event in words; empty if it is not told."""
        raise NotImplementedError

    def instruction(self, what: Any) -> str:
        """An instruction in words; empty if it is not told."""
        raise NotImplementedError

    def line(self, text: str) -> None:
        """Play one command."""
        time, verb, *words = text.split()
        self._until(int(time))
        named = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        command: Callable[..., None] = getattr(self, "do_" + verb.replace("-", "_"))
        command(*plain, **named)

    def _until(self, time: int) -> None:
        while (wake := self.core.wake_at()) is not None and wake < time:
            self.now = wake
            self.feed(Tick())
        self.now = time

    def feed(self, fact: Any) -> None:
        """Give a fact to the core and tell what follows."""
        step = self.core.handle(fact, self.now)
        self.core.check()
        for event in step.events:
            if event.id in self.log:
                self.tell(f"* {event.type}: known")
            elif text := self.event(event):
                self.tell(text)
            self.log.setdefault(event.id, event)
        for instruction in step.instructions:
            if text := self.instruction(instruction):
                self.tell(text)

    def tell(self, text: str) -> None:
        """A line of the story."""
        if not self.quiet:
            self.story.append(f"{self.now:>6}  {text}")

    # --- commands that all have ------------------------------------------------------------------

    def do_wait(self) -> None:
        """Only time passes."""
        self.feed(Tick())

    def do_explain(self, worker: str) -> None:
        for reason in self.core.explain(worker, self.now):
            self.tell(f"? {reason.code}: {reason.text}")

    def do_quiet(self) -> None:
        """Tell nothing of what follows, until `tell`."""
        self.quiet = True

    def do_tell(self) -> None:
        self.quiet = False
