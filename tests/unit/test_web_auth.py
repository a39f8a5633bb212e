"""Sessions end, limits limit, addresses count as their owner's."""

from hypothesis import given
from hypothesis import strategies as st

from openpool.web.auth import OPERATOR, RateLimit, Sessions, Visitor, client_key


def test_a_session_ends_by_itself() -> None:
    """A cookie is good until its time is over, and not a millisecond longer."""
    sessions = Sessions(lifetime_ms=1000)
    cookie = sessions.open(OPERATOR, now_ms=0)
    assert sessions.find(cookie, 999) == OPERATOR
    assert sessions.find(cookie, 1000) is None
    assert sessions.find(cookie, 0) is None, "an ended session does not come back"


def test_a_closed_session_is_over() -> None:
    """Signing out makes the cookie worthless; a foreign one never was good."""
    sessions = Sessions()
    cookie = sessions.open(Visitor(role="worker", workers=("w",)), 0)
    sessions.close(cookie)
    assert sessions.find(cookie, 0) is None
    assert sessions.find("", 0) is None
    assert sessions.find("\ud800", 0) is None


def test_sessions_are_bounded() -> None:
    """Too many sign-ins end the oldest session, not the process."""
    sessions = Sessions(most=2)
    first, second, third = (sessions.open(OPERATOR, 0) for _ in range(3))
    assert sessions.find(first, 0) is None
    assert sessions.find(second, 0) == sessions.find(third, 0) == OPERATOR


def test_a_limit_refills_slowly() -> None:
    """After a burst one more is allowed for every part of the minute that passes."""
    limit = RateLimit(per_minute=6, burst=3)
    assert [limit.take("a", 0) for _ in range(4)] == [True, True, True, False]
    assert limit.is_spent("a", 9_999)
    assert not limit.is_spent("a", 10_000)
    assert limit.take("a", 10_000)
    assert not limit.take("a", 10_000)
    assert limit.take("b", 10_000), "another client has its own"


@given(st.lists(st.integers(0, 2_000), max_size=200))
def test_nobody_gets_more_than_the_rate(gaps: list[int]) -> None:
    """Over any run of tries no more are allowed than the burst and the time give."""
    limit, now_ms, allowed = RateLimit(per_minute=60, burst=5), 0, 0
    for gap in gaps:
        now_ms += gap
        allowed += limit.take("a", now_ms)
    assert allowed <= 5 + now_ms // 1000


def test_a_limit_remembers_a_bounded_number_of_clients() -> None:
    """A flood of addresses does not grow the memory."""
    limit = RateLimit(per_minute=1, burst=1, most=10)
    for number in range(1000):
        limit.take(str(number), 0)
    assert len(limit._buckets) == 10


def test_one_client_owns_a_whole_ipv6_network() -> None:
    """Neighbours in a /64 count as one, and a mapped IPv4 address as itself."""
    assert client_key("2001:db8::1") == client_key("2001:db8::ffff")
    assert client_key("2001:db8::1") != client_key("2001:db8:0:1::1")
    assert client_key("::ffff:192.0.2.7") == client_key("192.0.2.7") == "192.0.2.7"
    assert client_key("") == ""
