"""What must hold for all numbers: rounding loses dust and never makes money."""

from hypothesis import given, settings
from hypothesis import strategies as st
from livepeer_model import Protocol

from openpool.core.livepeer import maths
from openpool.core.livepeer.bonding import NOBODY
from openpool.core.livepeer.delegators import hints
from openpool.core.livepeer.maths import PPM, PRECISE

LPT = 10**18
stakes = st.integers(min_value=1, max_value=10**8 * LPT)
amounts = st.integers(min_value=0, max_value=10**8 * LPT)
rates = st.integers(min_value=0, max_value=PPM)
DUST_MAX = 1_000
"""Base units that rounding may lose in one step."""


@given(amounts, amounts, stakes, st.sampled_from([PPM, maths.PPB, PRECISE]))
def test_a_share_is_never_more_than_exact(amount: int, part: int, whole: int, parts: int) -> None:
    """`frac` rounds down, by less than the coarseness of its ratio."""
    got = maths.frac(amount, part, whole, parts)
    assert got * whole <= amount * part
    assert amount * part < (got + amount // parts + 2) * whole


@given(amounts, stakes, stakes, st.integers(0, PRECISE), rates)
def test_a_reward_is_split_without_a_rest(
    mintable: int, stake: int, more: int, treasury_cut: int, cut_ppm: int
) -> None:
    """Treasury, commission and delegators together are what is minted, within the mintable."""
    won = maths.reward(
        mintable=mintable,
        stake=stake,
        active_stake=stake + more,
        treasury_cut=treasury_cut,
        reward_cut_ppm=cut_ppm,
    )
    assert won.treasury + won.commission + won.delegators == won.minted <= mintable
    assert min(won.treasury, won.commission, won.delegators) >= 0


@given(amounts, rates)
def test_fees_are_split_without_a_rest(fees_wei: int, share_ppm: int) -> None:
    """Commission and delegators' part are the whole ticket; the commission takes the odd wei."""
    split = maths.split_fees(fees_wei, share_ppm)
    assert split.commission_wei + split.delegators_wei == fees_wei
    assert split.delegators_wei * PPM <= fees_wei * share_ppm


deeds = st.lists(
    st.tuples(
        st.sampled_from(["reward", "redeem", "claim", "bond", "round", "cuts"]),
        st.sampled_from(["O", "A", "B", "C"]),
        st.integers(min_value=1, max_value=1_000 * LPT),
    ),
    max_size=40,
)


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(0, 50), st.integers(0, 12))
def test_hints_keep_the_set_sorted(stakes: list[int], stake: int, at: int) -> None:
    """Put between its hints, an orchestrator stands where its stake belongs."""
    ranked = [(f"o{i}", each) for i, each in enumerate(sorted(stakes, reverse=True))]
    who = f"o{at}" if at < len(ranked) else "new"
    others = [pair for pair in ranked if pair[0] != who]
    before, after = hints(ranked, who, stake)
    i = [each for each, _ in others].index(before) + 1 if before != NOBODY else 0
    assert after == (others[i][0] if i < len(others) else NOBODY)
    order = [each for _, each in (*others[:i], (who, stake), *others[i:])]
    assert order == sorted(order, reverse=True)


@settings(max_examples=60)
@given(deeds, rates, rates)
def test_the_sum_of_all_never_exceeds_what_came_in(
    deeds: list[tuple[str, str, int]], cut_ppm: int, share_ppm: int
) -> None:
    """Whatever happens, delegators together have at most the delegated stake and the fees paid;
    while nobody claims too early they have all of it but for dust."""
    protocol = Protocol(
        inflation=220_000,
        inflation_change=500,
        target_bonding_rate=500_000_000,
        unbonding_period=7,
        pool_max=3,
        treasury_cut=PRECISE // 10,
        supply=40_000_000 * LPT,
    )
    everybody = ["O", "A", "B", "C"]
    protocol.initialize_round(1)
    protocol.fund("G", 10**6 * LPT, 0)
    for who in everybody:
        protocol.bond(who, 10_000 * LPT, "O")
    protocol.transcoder("O", cut_ppm, share_ppm)
    protocol.initialize_round(2)
    fees, lost = 0, False
    for deed, who, amount in deeds:
        match deed:
            case "reward" if protocol.o("O").last_reward_round < protocol.round.number:
                protocol.reward("O")
            case "redeem":
                protocol.redeem("G", "O", amount)
                fees += amount
            case "claim":
                protocol.claim_earnings(who)
                lost = True
            case "bond":
                protocol.bond(who, amount, "O")
                lost = True
            case "cuts":
                protocol.transcoder("O", amount % PPM, share_ppm)
            case "round":
                protocol.initialize_round(protocol.round.number + 1)
        has = [protocol.earnings(each) for each in everybody]
        stake, earned = sum(each.stake for each in has), sum(each.fees_wei for each in has)
        assert stake <= protocol.d("O").delegated
        assert earned <= fees
        if not lost:
            assert protocol.d("O").delegated - stake <= DUST_MAX * len(deeds)
