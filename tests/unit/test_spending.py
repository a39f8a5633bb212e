"""What is held for calls under way, and how their cost is estimated."""

from random import Random

from openpool.core.calls import App
from openpool.core.money.spending import Estimates, Purse

CHAT = App("llm", "tiny")


def test_holds_never_let_more_begin_than_the_limit_pays() -> None:
    """Whatever begins, grows and ends in whatever order: what is owed and held stays within the
    limit, as long as no call costs more than was held for it, and one call alone may begin."""
    random, purse, running = Random(3), Purse(), dict[str, int]()
    for number in range(5_000):
        limit = 10_000
        purse.paid_wei = purse.spent_wei - random.randrange(limit)
        call, wei = f"c{number}", random.randrange(3_000)
        if purse.hold(call, wei, limit):
            running[call] = wei
            assert len(running) == 1 or purse.owed_wei + purse.held_wei <= limit
        while running and (random.random() < 0.5 or purse.is_empty(limit)):
            over = random.choice(list(running))
            purse.release(over)
            del running[over]
        assert purse.held_wei == sum(running.values())


def test_a_call_may_grow_up_to_the_limit() -> None:
    """A hold follows what was used, never shrinks, and says when the limit is reached, also
    because of others."""
    purse = Purse()
    assert purse.hold("a", 10, 100)
    assert purse.grow("a", 40, 100)
    assert purse.grow("a", 30, 100)
    assert purse.held_wei == 40
    assert purse.hold("b", 50, 100)
    assert not purse.grow("a", 50, 100)
    purse.release("b")
    assert purse.grow("a", 99, 100)
    assert not purse.grow("a", 100, 100)
    purse.release("a")
    purse.release("a")
    assert purse.held_wei == 0
    assert purse.grow("a", 10**9, 100), "a call that is over holds nothing"


def test_no_limit_refuses_nothing() -> None:
    """Without a limit everything begins and goes on, and is held all the same."""
    purse = Purse()
    assert purse.hold("a", 10**30, None)
    assert purse.hold("b", 10**30, None)
    assert purse.grow("a", 10**31, None)
    assert not purse.is_empty(None)


def test_an_estimate_follows_the_largest_call_and_forgets_it_slowly() -> None:
    """A large call is expected again for a while; the size of a request counts in any case."""
    estimates = Estimates()
    assert estimates.units(CHAT, "token", 40) == 500
    assert estimates.units(CHAT, "token", 40_000) == 10_000
    estimates.observe(CHAT, "token", 1_600)
    estimates.observe(CHAT, "token", 10)
    assert estimates.units(CHAT, "token", 40) == 1_500
    for _ in range(200):
        estimates.observe(CHAT, "token", 10)
    assert estimates.units(CHAT, "token", 40) < 20
    assert estimates.units(App("x", "y"), "second", 10**6) == 0
    assert estimates.units(App("x", "y"), "request", 10**6) == 1
