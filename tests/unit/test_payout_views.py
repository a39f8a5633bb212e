"""Lists of payouts, a page at a time: nothing twice, nothing left out."""

from openpool.core.events import AnyPayload, Event
from openpool.core.money.events import OrderConfirmed, OrderLine, OrderPlanned
from openpool.core.money.orders import OrderBook
from openpool.core.money.payout_plan import Payment, Plan, Rules, Waiting
from openpool.core.money.payout_views import NextPayouts, OrderView, orders_shown

RULES = Rules(threshold_wei=50, minimum_wei=10)
LPT_RULES = Rules(threshold_wei=5, minimum_wei=1)


def plans() -> list[tuple[Plan, Rules]]:
    """Seven addresses are owed ETH, of whom two are paid now; one of them is owed LPT, too."""
    waiting = tuple(Waiting(address=f"0x{n}", amount_wei=n, why="Wait.") for n in range(5))
    payments = tuple(Payment(address=f"0x{n}", amount_wei=n, send_wei=n) for n in (71, 72))
    lpt = Plan(asset="LPT", payments=(), waiting=(Waiting(address="0x3", amount_wei=1, why="."),))
    return [(Plan(asset="ETH", payments=payments, waiting=waiting), RULES), (lpt, LPT_RULES)]


def test_who_is_paid_next_comes_in_pages() -> None:
    """Due ones first, then those that are owed most; an address is counted once."""
    nexts, book, seen = NextPayouts(plans()), OrderBook(), list[str]()
    while page := nexts.page(book, seen[-1] if seen else "", 3):
        seen += [f"{each.asset}/{each.address}" for each in page]
    assert seen == [
        "ETH/0x72", "ETH/0x71", "ETH/0x4", "ETH/0x3", "ETH/0x2", "ETH/0x1", "ETH/0x0", "LPT/0x3",
    ]  # fmt: skip
    assert (nexts.addresses, len(nexts)) == (7, 8)
    assert nexts.page(book, "ETH/0x9") == nexts.page(book, "0x3") == ()
    mine = nexts.of("0x3", book)
    assert [(e.asset, e.owed_wei, e.threshold_wei, e.due) for e in mine] == [
        ("ETH", "3", "50", False),
        ("LPT", "1", "5", False),
    ]
    assert [e.due for e in nexts.page(book)] == [True, True, *[False] * 6]


def test_an_order_of_plans_lasts_as_long_as_the_plans() -> None:
    """Another plan is another one, even if it says the same."""
    made = plans()
    nexts = NextPayouts(made)
    assert nexts.are_of(list(made))
    assert not nexts.are_of(plans())
    assert not nexts.are_of(made[:1])
    assert not nexts.are_of([(made[0][0], LPT_RULES), made[1]])


def orders(many: int, ended: int) -> OrderBook:
    """So many orders, of which the first ones have ended."""
    book = OrderBook()

    def tell(n: int, data: AnyPayload) -> None:
        book.apply(Event(id=f"{data.type}/{n}", time_ms=n, data=data))

    for n in range(many):
        line = OrderLine(account="", address=f"0x{n % 2}", amount_wei="1", send_wei="1")
        shared = {"order": f"payout-{n}", "wallet": "0xw", "kind": "payout", "lines": (line,)}
        tell(n, OrderPlanned(**shared, chain_id=1, asset="ETH", to="0x1", value_wei="1", data="0x"))
        if n < ended:
            where = {"tx": "0xt", "block": 1, "block_hash": "0xb", "fee_wei": "0"}
            tell(n, OrderConfirmed(**shared, **where, asset="ETH"))
    return book


def test_orders_come_in_pages() -> None:
    """Open ones, then those that have ended, the newest first; also of one address or state."""
    book, seen = orders(9, 5), list[OrderView]()
    while page := orders_shown(book, limit=2, before=seen[-1].order if seen else ""):
        seen += page
    names = [each.order for each in seen]
    assert names == [f"payout-{n}" for n in (8, 7, 6, 5, 4, 3, 2, 1, 0)]
    of_one = orders_shown(book, address="0x0", state="confirmed", before="payout-6")
    assert [each.order for each in of_one] == ["payout-4", "payout-2", "payout-0"]
    assert orders_shown(book, before="payout-99") == ()
