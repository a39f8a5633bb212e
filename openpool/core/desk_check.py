"""What must always hold of a desk, derived anew and compared. For tests; it changes nothing."""

from typing import TYPE_CHECKING

from openpool.core.call_state import CallState

if TYPE_CHECKING:
    from openpool.core.desk import Desk


def check(desk: "Desk") -> None:
    """Raises AssertionError."""
    desk.stands.check()
    desk.fees.check()
    for call in desk.calls.values():
        assert (call.stand is None) == (call.state is CallState.WAITING)
        if call.stand is None:
            assert call.id in desk.stands.counters[call.app].waiting
        else:
            assert call.stand.calls[call.id] is call
            assert call.stand.line.up
    assert all(call.state is CallState.OVER for call in desk.over.values())
    for key, session in desk.sessions.items():
        calls = [call for call in desk.calls.values() if call.session is session]
        assert session.calls == len(calls)
        assert session.stand.line.up
        assert all(call.session_key == key for call in calls)
    for stand in desk.stands.all():
        loose = sum(call.session is None for call in stand.calls.values())
        sessions = sum(each.stand is stand for each in desk.sessions.values())
        assert stand.taken == loose + sessions
