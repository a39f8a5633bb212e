"""Sessions of the desk: calls that belong together and hold one place at one stand.

A part of `core.desk`, which says when a call joins or leaves one. It must not choose stands.
"""

from functools import partial

from openpool.core.call_facts import CallReceived
from openpool.core.call_instructions import SessionLost
from openpool.core.call_state import Session, SessionKey
from openpool.core.settings import DeskSettings
from openpool.core.stands import Line, Stand, Stands
from openpool.core.step import Outbox, Timers


class Sessions:
    """Keeps them."""

    def __init__(self, settings: DeskSettings, out: Outbox, timers: Timers, stands: Stands) -> None:
        self.open: dict[SessionKey, Session] = {}
        self._settings = settings
        self._out = out
        self._timers = timers
        self._stands = stands

    def begin(self, key: SessionKey, opened: CallReceived, stand: Stand) -> Session:
        """Give a session a place."""
        self._stands.take(stand)
        session = self.open[key] = Session(key, opened, stand, self._out.now_ms)
        self._watch(session)
        return session

    def leave(self, session: Session) -> None:
        """One of its calls has ended."""
        session.calls -= 1
        session.last_ms = self._out.now_ms
        if not session.calls and (session.closed or not session.used):
            self._end(session)

    def close(self, key: SessionKey) -> None:
        """No more calls come: its place is free at once, or when its last call ends."""
        session = self.open.get(key)
        if session is None:
            return
        session.closed = True
        if not session.calls:
            self._end(session)

    def lose(self, line: Line, reason: str) -> None:
        """A line is gone, and what its worker had in mind for its sessions with it."""
        for session in [each for each in self.open.values() if each.stand.line is line]:
            self._end(session)
            if session.used:
                self._tell_lost(session.opened, reason)

    def _tell_lost(self, asked: CallReceived, reason: str) -> None:
        self._out.do(
            SessionLost(
                app=asked.app,
                session=asked.session,
                customer=asked.customer,
                orchestrator=asked.orchestrator,
                reason=f"its worker is gone ({reason})",
            )
        )

    def _end(self, session: Session) -> None:
        if self.open.get(session.key) is session:
            del self.open[session.key]
            self._timers.cancel(session.timer)
            self._stands.give_back(session.stand)

    def _watch(self, session: Session) -> None:
        due_ms = max(session.last_ms + self._settings.session_idle_ms, self._out.now_ms + 1)
        session.timer = self._timers.at(due_ms, partial(self._expire, session))

    def _expire(self, session: Session) -> None:
        if session.calls:
            session.last_ms = self._out.now_ms
        if self._out.now_ms < session.last_ms + self._settings.session_idle_ms:
            self._watch(session)
        else:
            self._end(session)
