"""What the checks of answers have in common."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from openpool.core.call_requests import Transcript
from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadResult
from openpool.core.usage import Measured
from openpool.pool.checkers import CheckerHung, CheckerLost, Checkers
from openpool.pool.findings import Fault, Weigh, Weight

LARGE_BYTES = 256_000

Shape = TypeVar("Shape")
Done = TypeVar("Done")


class TokenCounter(Protocol):
    """Counts with a model's own tokenizer (`pool.tokenizers`)."""

    async def __call__(
        self, model: str, texts: Sequence[str], *, marks: bool = False
    ) -> Sequence[int] | None:
        """Tokens of each text, with the marks that the tokenizer puts around one if wanted; None
        where the model's tokenizer is not known."""


async def count_nothing(model: str, texts: Sequence[str], *, marks: bool = False) -> None:
    """No tokenizer is known."""


class Unmeasured(Exception):
    """Something cannot be measured, and not through the worker's fault; why, in words."""


class Finding:
    """An answer that is right: what was measured, and how, in words."""

    def __init__(self, seen: Measured, note: str) -> None:
        self.seen = seen
        self.note = note


class Opener(Protocol):
    """Opens files that strangers sent."""

    def __call__(self, data: bytes) -> Awaitable[Weight]:
        """What is in the file. Raises Unmeasured."""


def opener(checkers: Checkers, limit_s: float) -> Opener:
    """Opens files in the checker processes."""

    async def weigh(data: bytes) -> Weight:
        try:
            found = await checkers.ask(Weigh(), data, limit_s)
        except (CheckerLost, CheckerHung):
            raise Unmeasured("it crashed or blocked what opens it") from None
        if isinstance(found, Fault):
            raise Unmeasured(f"it {found.text}")
        assert isinstance(found, Weight)  # what a Weigh is answered by
        return found

    return weigh


def few_at_once(opened: Opener, at_once: int) -> Opener:
    """Opens no more files at once than that: who comes later waits, and others are not held up."""
    turns = asyncio.Semaphore(at_once)

    async def weigh(data: bytes) -> Weight:
        async with turns:
            return await opened(data)

    return weigh


async def open_result(opened: Opener, data: bytes, what: str) -> Weight:
    """What is in a file that a worker made. Raises BadResult if it cannot be opened."""
    try:
        return await opened(data)
    except Unmeasured as fault:
        raise BadResult(f"{what} is damaged: {fault}") from None


def read_answer(answer: bytes, kind: type[Shape]) -> Shape:
    """The JSON of an answer in its shape. Raises BadResult."""
    try:
        return msgspec.json.decode(answer, type=kind)
    except UNREADABLE as fault:
        raise BadResult(f"the answer has not the right shape: {fault}") from None


async def off_loop(said: Transcript, work: Callable[[], Done]) -> Done:
    """Do the work in a thread if the answer is so large that the event loop would stand still."""
    return await asyncio.to_thread(work) if len(said.answer) > LARGE_BYTES else work()


def demand(is_right: bool, otherwise: str) -> None:
    """Raises BadResult with the sentence unless it is right."""
    if not is_right:
        raise BadResult(otherwise)


def is_share(value: float) -> bool:
    """Whether it is a number from 0 to 1."""
    return math.isfinite(value) and 0 <= value <= 1
