"""What the desk tells shells to do about calls, in the imperative. `core.call_facts` answer."""

from msgspec import Struct

from openpool.core.calls import App, CallFailure


class StartCall(Struct, frozen=True, kw_only=True):
    """Have a worker serve a call; its request is sent anew at each attempt."""

    call: str
    attempt: int
    worker: str
    line: str
    app: App
    deadline_ms: int
    """0 for a call that may last."""


class StopCall(Struct, frozen=True, kw_only=True):
    """Cancel an attempt at its worker, if it still runs there. Says nothing to the client."""

    call: str
    attempt: int
    line: str


class RefuseCall(Struct, frozen=True, kw_only=True):
    """Tell the client that its call failed; no further attempt follows. If a part of an answer
    went out already, end it with this error."""

    call: str
    code: CallFailure
    text: str


class SessionLost(Struct, frozen=True, kw_only=True):
    """The worker that had this session is gone: its state is lost, nobody should pay for it."""

    app: App
    session: str
    customer: str
    orchestrator: str
    reason: str


CallInstruction = StartCall | StopCall | RefuseCall | SessionLost
