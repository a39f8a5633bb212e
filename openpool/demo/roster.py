"""Who is registered with the orchestrator stand-in, and who gets a session.

These are the orchestrator's own rules, odd corners included: capacity counts sessions, a session
stays where it is until it ends or a task of it fails, and one who left is only forgotten when it
is picked. No sockets here; `demo.orchestrator` speaks the protocol.
"""

import asyncio
from collections.abc import Callable

from openpool.core.errors import NoCapacity
from openpool.link.interface import RegistrationStream


class Member:
    """One open registration."""

    def __init__(
        self,
        stream: RegistrationStream,
        *,
        capacity: int,
        capabilities: int,
        version: str,
        peer: str,
    ) -> None:
        self.stream = stream
        self.capacity = capacity
        self.capabilities = capabilities
        self.version = version
        self.peer = peer
        self.load = 0
        self.over = asyncio.Event()
        """Set when the peer is gone or the orchestrator gives up on it: the stream ends with OK."""

    @property
    def load_factor(self) -> float:
        return self.load / self.capacity


class Roster:
    """The members, and which of them holds which session."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._live: set[Member] = set()
        self._sessions: dict[str, Member] = {}

    def add(self, member: Member) -> None:
        self._live.add(member)
        self._members.append(member)
        self._sort()

    def leave(self, member: Member) -> None:
        """Its stream is over; its sessions move when their next segment comes."""
        self._live.discard(member)

    def choose(self, session: str, fits: Callable[[Member], bool]) -> Member:
        """Who transcodes the next segment of `session`. Raises NoCapacity with the wire's text."""
        while self._members:
            fitting = next((m for m in reversed(self._members) if fits(m)), None)
            if fitting is None:
                raise NoCapacity("no transcoders can provide requested capabilities")
            chosen = self._sessions.get(session, fitting)
            if chosen not in self._live:
                self.release(session)
                self._members = [m for m in self._members if m is not chosen]
            elif session in self._sessions:
                return chosen
            elif chosen.load == chosen.capacity:
                break
            else:
                self._hold(session, chosen)
                return chosen
        raise NoCapacity("no transcoders available")

    def holder(self, session: str) -> Member | None:
        """Who holds the session at the moment."""
        return self._sessions.get(session)

    def release(self, session: str) -> None:
        """The session's seat is free again; nothing happens if nobody held it."""
        if member := self._sessions.pop(session, None):
            member.load -= 1
            self._sort()

    def live(self) -> list[Member]:
        return [member for member in self._members if member in self._live]

    def _hold(self, session: str, member: Member) -> None:
        self._sessions[session] = member
        member.load += 1
        self._sort()

    def _sort(self) -> None:
        self._members.sort(key=lambda member: member.load_factor, reverse=True)
