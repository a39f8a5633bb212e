"""What entry points and the exchange say to each other about one call. Pure values.

An entry point (the direct API, a Live Runner, an AI worker) makes a `CallRequest`;
`pool.exchange` has it served and gives back an answer, or raises `CallFailed`. What went to and
fro is a `Transcript`, from which `pool.answers` counts and judges. Read next: `core.call_facts`.
"""

from collections.abc import Mapping

from msgspec import Struct

from openpool.core.calls import App, CallFailure, CallSource, Unit, Usage
from openpool.core.errors import OpenPoolError
from openpool.core.payment import Payment
from openpool.core.usage import Measured


class CallFailed(OpenPoolError):
    """The call had no whole answer."""

    def __init__(self, failure: CallFailure, text: str, *, started: bool = False) -> None:
        super().__init__(text)
        self.failure: CallFailure = failure
        self.started = started
        """Whether a part of an answer was passed on already."""

    @property
    def code(self) -> str:  # type: ignore[override]  # an attribute of all other classes
        return self.failure


class CallRequest(Struct, frozen=True, kw_only=True):
    """Somebody wants an exchange with an app. The body comes beside it."""

    app: App
    source: CallSource
    customer: str = ""
    """Who pays: the id of a customer, or else an orchestrator."""
    orchestrator: str = ""
    session: str = ""
    method: str = "POST"
    path: str = "/"
    """Below the app, with its query: what the worker's runtime is asked."""
    headers: Mapping[str, str] = {}
    """What the worker gets to see; the entry point has left out all that is not its business."""
    streaming: bool = False
    """Whether the answer is to be passed on as it comes, not after it was checked."""
    lasting: bool = False
    """Whether it is a session without a deadline; then nothing is kept for a second try."""
    payment: Payment | None = None
    """What a gateway paid for this one request, where that is known: for comparison, it credits
    nobody."""


class Transcript(Struct, frozen=True, kw_only=True):
    """One call that has ended: what was asked and answered, as far as it was kept."""

    app: App
    source: CallSource
    path: str
    unit: Unit
    """What is to be counted, because that is what has a price."""
    request_type: str
    request: bytes
    status: int
    answer_type: str
    answer: bytes
    whole: bool
    """Whether `answer` is all of it, to its end."""
    took_ms: int
    """From the first try to the last byte, or to the last that was right."""
    seen: Measured | None = None
    """What was measured of a session's answer while it passed; `answer` is empty then."""
    fault: str = ""
    """What is wrong with that which came after it; empty if all of it was right."""


class Checked(Struct, frozen=True, kw_only=True):
    """What a transcript comes to."""

    usage: Usage
    blamed: bool = False
    """Whether the worker is to blame for what is wrong: with all of the answer, or, if `usage` is
    checked, with the rest of it."""
