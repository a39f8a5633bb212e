"""Why revenue may be read off pending fees: by the protocol's own arithmetic, whatever happens.

Only a ticket makes an orchestrator's claim grow and only a withdrawal makes it smaller. Claims,
rewards, stake that comes and goes, new cuts and new rounds leave it as it is.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from livepeer_model import Protocol

from openpool.core.money.revenue import realised

LPT = 10**18
deeds = st.lists(
    st.tuples(
        st.sampled_from(
            ["reward", "redeem", "claim", "bond", "unbond", "round", "cuts", "withdraw", "others"]
        ),
        st.integers(min_value=1, max_value=1_000 * LPT),
    ),
    max_size=40,
)


def begun() -> Protocol:
    """Two orchestrators and a delegator, in a round in which the first is active."""
    protocol = Protocol(
        inflation=250_000,
        inflation_change=500,
        target_bonding_rate=500_000_000,
        unbonding_period=7,
        pool_max=3,
        treasury_cut=10**26,
        supply=10**7 * LPT,
    )
    protocol.initialize_round(1)
    for who, stake in (("O", 3_000), ("R", 5_000)):
        protocol.bond(who, stake * LPT, who)
        protocol.transcoder(who, 250_000, 300_000)
    protocol.bond("D", 1_000 * LPT, "O")
    protocol.fund("G", 10_000 * LPT, 100 * LPT)
    protocol.initialize_round(2)
    return protocol


def perform(protocol: Protocol, deed: str, amount: int) -> tuple[int, int]:
    """What a ticket paid and what was withdrawn."""
    now = protocol.round.number
    match deed:
        case "redeem":
            protocol.redeem("G", "O", amount)
            return protocol.paid, 0
        case "withdraw":
            protocol.claim_earnings("O")
            part = protocol.d("O").fees_wei * (amount % 101) // 100
            protocol.withdraw_fees("O", part)
            return 0, part
        case "reward" if protocol.o("O").last_reward_round < now:
            protocol.reward("O")
        case "claim":
            protocol.claim_earnings("O")
        case "others":
            protocol.claim_earnings("D")
        case "bond":
            protocol.bond("O" if amount % 2 else "D", amount, "O")
        case "unbond" if protocol.d("D").status(now) == "bonded":
            protocol.unbond("D", min(amount, protocol.d("D").bonded // 2 + 1))
        case "round":
            protocol.initialize_round(now + 1)
        case "cuts" if protocol.o("O").last_reward_round == now:
            protocol.transcoder("O", amount % 1_000_001, amount * 7 % 1_000_001)
    return 0, 0


@settings(max_examples=150, deadline=None)
@given(deeds)
def test_only_tickets_make_a_claim_grow(deeds: list[tuple[str, int]]) -> None:
    """After each deed: growth plus what was withdrawn is nothing without a ticket, and at most the
    ticket with one; so ranges add up, wherever they are cut."""
    protocol = begun()
    start = before = protocol.earnings("O").fees_wei
    paid_so_far = withdrawn_so_far = booked = 0
    for deed, amount in deeds:
        paid, withdrawn = perform(protocol, deed, amount)
        after = protocol.earnings("O").fees_wei
        grown = realised(before, after, withdrawn)
        assert after - before + withdrawn == grown, "nothing was cut off at zero"
        # whole wei that earlier tickets had left as fractions may appear with a later one
        assert grown <= paid + (1 if paid else 0)
        paid_so_far, withdrawn_so_far = paid_so_far + paid, withdrawn_so_far + withdrawn
        booked, before = booked + grown, after
    assert booked == realised(start, before, withdrawn_so_far) <= paid_so_far
