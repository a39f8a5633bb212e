"""Paying on a real chain while everything around goes wrong. Each time: once, exact, no help."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from evm import Ask, Faulty, drop_answer, drop_request, http_status, lie, refuse
from modelchain import ModelSigner
from msgspec.structs import replace
from payers import MILLI, MINUTE_MS, OPTIONS, Pool

from openpool.chain.client import EthereumChain, open_chain
from openpool.chain.interface import Call, Signed, Transaction
from openpool.core.errors import SetupError
from openpool.core.money.orders import Order
from openpool.core.units import ETHER, GWEI
from openpool.demo.evm import CHAIN_ID, DEPLOYER, Evm, account, address
from openpool.store.interface import EventFilter

PAYEE, OTHER = address("somebody"), address("somebody else")
MakeFaulty = Callable[[], Awaitable[Faulty]]
MakePool = Callable[..., Awaitable[Pool]]


@pytest.fixture
async def chain(faulty: Faulty) -> AsyncIterator[EthereumChain]:
    async with open_chain([faulty.url], chain_id=CHAIN_ID, agree=1, timeout_s=0.3) as found:
        yield found


@pytest.fixture
async def make_pool(evm: Evm, chain: EthereumChain, tmp_path: Path) -> AsyncIterator[MakePool]:
    """A pool that owes 50 milliether; its books are checked in the end."""
    made: list[Pool] = []

    async def make(**changes: object) -> Pool:
        signer = ModelSigner()
        await evm.set_balance(signer.address, 10 * ETHER)
        await evm.automine(False)
        pool = Pool(tmp_path, evm, changes.pop("chain", chain), signer, OPTIONS)
        made.append(await pool.open())
        await pool.owe(PAYEE, 50 * MILLI)
        return pool

    yield make
    for pool in made:
        pool.close()


def only(pool: Pool) -> Order:
    """The one order that is open."""
    (order,) = pool.payer.journal.book.open.values()
    return order


async def test_undone_by_a_reorganisation(evm: Evm, make_pool: MakePool) -> None:
    """A payment whose block is undone is sent again with the same bytes."""
    pool = await make_pool()
    await pool.tick()
    await evm.mine()
    await pool.tick()
    tx = only(pool).tx
    assert only(pool).state == "mined"
    await evm.reorg(1)
    assert await pool.got(PAYEE) == 0
    await pool.tick(2 * MINUTE_MS)
    await evm.mine()
    await pool.tick()
    assert (only(pool).state, only(pool).tx, len(only(pool).attempts)) == ("mined", tx, 1)
    await pool.settle()
    assert await pool.got(PAYEE) == 50 * MILLI


async def test_stuck_and_replaced(evm: Evm, make_pool: MakePool) -> None:
    """What is not mined is sent again with the same nonce and 11 % more, and it is paid once."""
    pool = await make_pool()
    await pool.tick()
    await pool.tick(6 * MINUTE_MS)
    first, second = only(pool).attempts
    assert first.nonce == second.nonce
    assert second.max_fee_wei * 100 >= first.max_fee_wei * 111
    assert second.priority_fee_wei * 100 >= first.priority_fee_wei * 111
    await pool.settle()
    assert pool.payer.journal.book.ended[-1].tx == second.tx
    assert await pool.got(PAYEE) == 50 * MILLI


async def test_the_replaced_one_is_mined(evm: Evm, make_pool: MakePool) -> None:
    """It may be the first transaction that gets into a block: it settles the order as well."""
    pool = await make_pool()
    await pool.tick()
    await pool.tick(6 * MINUTE_MS)
    first, second = only(pool).attempts
    await evm.drop(second.tx)
    await evm.rpc("eth_sendRawTransaction", first.raw)
    await evm.mine()
    await pool.settle()
    assert pool.payer.journal.book.ended[-1].tx == first.tx
    assert await pool.got(PAYEE) == 50 * MILLI


async def test_a_stuck_one_holds_up_later_ones(evm: Evm, make_pool: MakePool) -> None:
    """Only the transaction that is next in line is replaced; then the later ones follow."""
    pool = await make_pool()
    await pool.owe(OTHER, 20 * MILLI)
    await evm.base_fee(GWEI)
    await pool.tick()
    await pool.tick(6 * MINUTE_MS)
    orders = sorted(pool.payer.journal.book.open.values(), key=lambda o: o.nonce or 0)
    assert [len(order.attempts) for order in orders] == [2, 1]
    await pool.settle()
    assert await pool.got(PAYEE) == 50 * MILLI
    assert await pool.got(OTHER) == 20 * MILLI


async def test_dear_gas(evm: Evm, make_pool: MakePool) -> None:
    """A base fee above what was offered: the payment is replaced until it fits."""
    pool = await make_pool()
    await pool.tick()
    dear = 5 * only(pool).newest.max_fee_wei
    for _ in range(3):
        await evm.base_fee(dear)
        await evm.mine()
        await pool.tick(6 * MINUTE_MS)
    assert only(pool).newest.max_fee_wei > dear
    await pool.settle()
    assert await pool.got(PAYEE) == 50 * MILLI


async def test_the_wallet_is_filled_later(evm: Evm, make_pool: MakePool) -> None:
    """Too little in the wallet: said, and paid as soon as it is filled."""
    pool = await make_pool()
    await evm.set_balance(pool.signer.address, 10 * MILLI)
    await pool.tick()
    plan = pool.payer.last_plan
    assert plan is not None
    assert plan.missing_wei > 40 * MILLI
    assert [w.why[:43] for w in plan.waiting] == ["The pool's wallet holds too little at the m"]
    assert not pool.payer.journal.book.known
    await evm.set_balance(pool.signer.address, ETHER)
    await pool.settle()
    assert await pool.got(PAYEE) == 50 * MILLI


async def test_emptied_while_a_payment_is_on_its_way(evm: Evm, make_pool: MakePool) -> None:
    """A signed payment that the wallet cannot bear is sent again until it can; it is not signed
    anew, since more fee would not help."""
    pool = await make_pool()
    await pool.tick()
    await evm.drop(only(pool).newest.tx)
    await evm.set_balance(pool.signer.address, 10 * MILLI)
    for _ in range(3):
        await pool.tick(6 * MINUTE_MS)
        await evm.mine()
    assert only(pool).newest.answer == "insufficient-funds"
    attempts = len(only(pool).attempts)
    await pool.tick(6 * MINUTE_MS)
    assert len(only(pool).attempts) == attempts <= 3
    await evm.set_balance(pool.signer.address, ETHER)
    await pool.settle()
    assert await pool.got(PAYEE) == 50 * MILLI


@pytest.mark.parametrize(
    ("contract", "words"), [("RefusesEther", "refuses the payment"), ("BurnsGas", "gas")]
)
async def test_a_recipient_that_cannot_be_paid(
    evm: Evm, make_pool: MakePool, contract: str, words: str
) -> None:
    """A contract that refuses or burns gas is found out before anything is signed; others are
    paid, and it is when its owner acts."""
    pool = await make_pool()
    await evm.set_balance(address(DEPLOYER), ETHER)
    bad = await evm.deploy(contract)
    await pool.owe(bad, 30 * MILLI)
    await pool.settle()
    assert await pool.got(PAYEE) == 50 * MILLI
    assert words in pool.payer.journal.book.blocked[bad]
    assert pool.balance(f"worker:{bad}") == 30 * MILLI
    await evm.rpc("anvil_setCode", bad, "0x")
    await pool.payer.choose(bad, "ETH", 0, staked=False)
    await pool.settle()
    assert await pool.got(bad) == 30 * MILLI


async def test_a_recipient_that_changes_its_mind(evm: Evm, make_pool: MakePool) -> None:
    """A payment that fails on chain comes back to its account, its gas is booked, and the address
    is blocked."""
    pool = await make_pool()
    await evm.set_balance(address(DEPLOYER), ETHER)
    refuses = await evm.deploy("RefusesEther")
    await pool.tick()
    await evm.rpc("anvil_setCode", PAYEE, await evm.rpc("eth_getCode", refuses, "latest"))
    await pool.settle()
    order = pool.payer.journal.book.ended[-1]
    assert order.state == "voided"
    assert pool.balance(f"worker:{PAYEE}") == 50 * MILLI
    assert pool.balance("gas") == -order.fee_wei < 0
    assert "refused the payment" in pool.payer.journal.book.blocked[PAYEE]
    assert await pool.got(PAYEE) == 0


async def test_a_nonce_used_elsewhere(evm: Evm, make_pool: MakePool) -> None:
    """Somebody else's transaction takes the nonce: once that is final and certain, the payment is
    given up and made under a new order, without anybody's help."""
    pool = await make_pool()
    await pool.tick()
    await evm.drop(only(pool).newest.tx)
    signed = await pool.signer.sign(foreign_transaction(only(pool).newest.nonce))
    await evm.rpc("eth_sendRawTransaction", f"0x{signed.raw.hex()}")
    await evm.mine()
    await pool.tick()
    assert only(pool).state == "sent"
    await pool.settle()
    ended = {o.order: o for o in pool.payer.journal.book.ended}
    assert [o.state for o in ended.values()] == ["voided", "confirmed"]
    assert "A transaction from elsewhere" in ended["payout-1"].reason
    assert await pool.got(PAYEE) == 50 * MILLI


def foreign_transaction(nonce: int) -> Transaction:
    return Transaction(
        chain_id=CHAIN_ID,
        nonce=nonce,
        to=OTHER,
        value_wei=1,
        data=b"",
        gas_limit=21_000,
        max_fee_wei=100 * 10**9,
        priority_fee_wei=10**9,
    )


async def test_an_endpoint_that_hides_for_ever_what_was_mined(
    evm: Evm, make_pool: MakePool, faulty: Faulty
) -> None:
    """It says the nonce is used, hides the receipt, and shows a foreign transaction that it made
    up: for days nothing is given up or paid again. Once it tells the truth the order counts."""
    pool = await make_pool()
    await pool.tick()
    tx = only(pool).newest.tx
    await evm.mine(4)
    await evm.finalize()
    faulty.on("eth_getTransactionReceipt", lie(lambda told: None))
    faulty.on("eth_getBlockByNumber", lie(made_up))
    for _ in range(20):
        await pool.tick(180 * MINUTE_MS)
    await pool.crash()
    await pool.tick(180 * MINUTE_MS)
    assert [o.order for o in pool.payer.journal.book.open.values()] == ["payout-1"]
    assert "no endpoint shows the transaction" in pool.payer.problem
    faulty.heal()
    await pool.settle()
    (ended,) = pool.payer.journal.book.ended
    assert (ended.state, ended.tx) == ("confirmed", tx)
    assert await pool.got(PAYEE) == 50 * MILLI


def made_up(block: dict[str, Any]) -> dict[str, Any]:
    """A block in which each transaction has another hash and value than it has."""
    shown = [
        each | {"hash": f"0x{'ab' * 32}", "value": "0x1"} if isinstance(each, dict) else each
        for each in block["transactions"]
    ]
    return block | {"transactions": shown}


async def test_a_signer_that_signs_something_else(make_pool: MakePool) -> None:
    """A signature of another amount is not sent; the brake is pulled, and it is said why."""
    pool = await make_pool()
    sign = pool.signer.sign

    async def more(transaction: Transaction) -> Signed:
        return await sign(replace(transaction, value_wei=transaction.value_wei + 1))

    pool.signer.sign = more
    await pool.tick()
    paused = pool.payer.journal.book.paused
    assert paused is not None
    assert "did not sign what it was asked to" in paused.reason
    assert not pool.payer.journal.book.known


async def test_a_nonce_used_elsewhere_while_idle(evm: Evm, make_pool: MakePool) -> None:
    """A transaction made with the wallet by hand between two payouts disturbs nothing."""
    pool = await make_pool()
    await pool.settle()
    await evm.send(pool.signer.address, Call(to=OTHER, value_wei=1))
    await pool.owe(PAYEE, 20 * MILLI)
    await pool.settle()
    assert await pool.got(PAYEE) == 70 * MILLI


@pytest.mark.parametrize("age", ["waiting", "mined", "final"])
async def test_an_old_copy_of_the_log(evm: Evm, make_pool: MakePool, age: str) -> None:
    """A log that does not know the newest payouts pays nobody until the operator has looked:
    it would pay them again."""
    pool = await make_pool()
    await pool.settle()
    signed = await pool.signer.sign(foreign_transaction(nonce=1))
    await evm.rpc("eth_sendRawTransaction", f"0x{signed.raw.hex()}")
    if age != "waiting":
        await evm.mine(1 if age == "mined" else 4)
    await pool.owe(PAYEE, 20 * MILLI)
    await pool.crash()
    for _ in range(3):
        await pool.tick(MINUTE_MS)
    assert "this pool's log does not know" in pool.payer.held
    assert await pool.got(PAYEE) == 50 * MILLI
    await pool.payer.resume()
    await pool.settle()
    assert await pool.got(PAYEE) == 70 * MILLI


async def test_an_old_copy_without_any_payout(evm: Evm, make_pool: MakePool) -> None:
    """A log that owes something and knows no payout of a wallet that was used waits as well."""
    pool = await make_pool()
    await evm.send(pool.signer.address, Call(to=OTHER, value_wei=1))
    await pool.tick()
    assert "this pool's log does not know" in pool.payer.held
    assert not pool.payer.journal.book.known
    await pool.payer.resume()
    await pool.settle()
    assert await pool.got(PAYEE) == 50 * MILLI


async def test_what_the_operator_has_seen_to_is_asked_once(evm: Evm, make_pool: MakePool) -> None:
    """A restart right after `resume` asks nothing again, unless the wallet was used once more; a
    `resume` before the first look at the chain answers nothing."""
    pool = await make_pool()
    await pool.settle()
    await evm.send(pool.signer.address, Call(to=OTHER, value_wei=1))
    await pool.owe(PAYEE, 20 * MILLI)
    await pool.crash()
    await pool.payer.resume()
    await pool.tick()
    assert "1 transaction of the wallet that" in pool.payer.held
    await pool.payer.resume()
    await evm.send(pool.signer.address, Call(to=OTHER, value_wei=1))
    await pool.crash()
    await pool.tick()
    assert "1 transaction of the wallet that" in pool.payer.held
    await pool.payer.resume()
    await pool.crash()
    await pool.tick()
    assert pool.payer.held == ""
    await pool.settle()
    assert await pool.got(PAYEE) == 70 * MILLI


async def test_orders_of_another_chain_end_the_start(make_pool: MakePool, faulty: Faulty) -> None:
    pool = await make_pool()
    await pool.settle()
    async with open_chain([faulty.url], chain_id=42_161, agree=1) as other:
        pool.chain = other
        with pytest.raises(SetupError, match="another data folder"):
            await pool.crash()
    await pool.payer.journal.load()


async def test_each_fact_is_kept_and_none_without_news(make_pool: MakePool) -> None:
    """Facts of one millisecond are all kept; the same choice again is none."""
    pool = await make_pool()
    for _ in range(2):
        await pool.payer.pause("look", by="operator")
        await pool.payer.resume()
        await pool.payer.choose(PAYEE, "ETH", 5 * MILLI, staked=False)
    types = ("payouts-paused", "payouts-resumed", "payout-chosen")
    found = [e.event.type for e in pool.store.events(EventFilter(types=types, limit=100))]
    assert found == ["payouts-paused", "payouts-resumed", "payout-chosen", *types[:2]]


async def test_the_wrong_chain(make_pool: MakePool, faulty: Faulty) -> None:
    """Endpoints of another chain than the settings say: nothing is signed, and it is said why."""
    async with open_chain([faulty.url], chain_id=42_161, agree=1) as wrong:
        pool = await make_pool(chain=wrong)
        await pool.tick()
        assert "42161" in pool.payer.problem
        assert not pool.payer.journal.book.known


@pytest.mark.parametrize("fault", [drop_request, http_status(503), refuse("busy")])
async def test_an_endpoint_that_is_gone_for_a_while(
    make_pool: MakePool, faulty: Faulty, fault: object
) -> None:
    """Nothing is known, so nothing is done; when the endpoint is back, all goes on."""
    pool = await make_pool()
    await pool.tick()
    faulty.on("*", fault)  # type: ignore[arg-type]
    await pool.tick()
    assert pool.payer.problem
    faulty.heal()
    await pool.settle()
    assert pool.payer.problem == ""
    assert await pool.got(PAYEE) == 50 * MILLI


async def test_an_endpoint_that_never_answers(make_pool: MakePool, faulty: Faulty) -> None:
    """Every wait ends; what was asked for is asked again."""
    pool = await make_pool()
    answer = asyncio.Event()

    async def slow(ask: Ask) -> dict[str, Any]:
        await answer.wait()
        return await ask()

    faulty.on("eth_sendRawTransaction", slow, times=1)
    await pool.tick()
    assert pool.payer.problem
    answer.set()
    await pool.settle()
    assert await pool.got(PAYEE) == 50 * MILLI


async def test_another_wallet(evm: Evm, make_pool: MakePool) -> None:
    """The settings name another key while a payment of the old one is on its way: that one is
    followed to its end with the bytes that there are, new ones come from the new wallet."""
    pool = await make_pool()
    await pool.tick()
    old = only(pool).newest
    await evm.drop(old.tx)
    pool.signer = ModelSigner(account("new wallet"))
    await evm.set_balance(pool.signer.address, ETHER)
    await pool.crash()
    await pool.owe(OTHER, 20 * MILLI)
    await pool.tick(10 * MINUTE_MS)
    await pool.settle()
    ended = {o.lines[0].address: o for o in pool.payer.journal.book.ended}
    assert (ended[PAYEE].tx, len(ended[PAYEE].attempts)) == (old.tx, 1)
    assert ended[OTHER].wallet == pool.signer.address
    assert (await pool.got(PAYEE), await pool.got(OTHER)) == (50 * MILLI, 20 * MILLI)


async def test_reward_through_the_same_machine(evm: Evm, make_pool: MakePool) -> None:
    """An order of another kind is carried out once, however often it is asked for, also while
    payouts are paused; one that the contract refuses is given up without a signature."""
    pool = await make_pool()
    await evm.set_balance(address(DEPLOYER), ETHER)
    refuses = await evm.deploy("RefusesEther")
    await pool.payer.pause("Moving house.")
    asked = {"kind": "reward", "to": OTHER, "data": b"\x22\x8c\xb7\x33", "note": "round 7"}
    assert await pool.payer.plan(order="reward/main/7", **asked)
    assert not await pool.payer.plan(order="reward/main/7", **asked)
    assert await pool.payer.plan(order="reward/main/8", **(asked | {"to": refuses}))
    await pool.settle()
    done, refused = (pool.payer.order(f"reward/main/{n}") for n in (7, 8))
    assert done is not None
    assert refused is not None
    assert (done.state, refused.state, refused.attempts) == ("confirmed", "voided", ())
    assert pool.balance("gas") == -done.fee_wei
    assert not await pool.payer.plan(order="reward/main/7", **asked)
    assert await pool.got(PAYEE) == 0


@pytest.mark.parametrize("fault", [drop_answer, drop_request, refuse("internal error")])
async def test_no_answer_to_a_transaction(
    make_pool: MakePool, faulty: Faulty, fault: object
) -> None:
    """Whether it arrived is not known, so the same bytes are sent again."""
    pool = await make_pool()
    faulty.on("eth_sendRawTransaction", fault, times=2)  # type: ignore[arg-type]
    await pool.tick()
    await pool.tick()
    await pool.settle()
    assert len(pool.payer.journal.book.ended[-1].attempts) == 1
    assert await pool.got(PAYEE) == 50 * MILLI


@pytest.mark.parametrize("off", [-1, 3])
async def test_an_endpoint_that_lies_about_the_nonce(
    evm: Evm, make_pool: MakePool, faulty: Faulty, off: int
) -> None:
    """Too low or too high, for half an hour and over a restart: a gap is closed, nothing is given
    up that may still happen, and everybody is paid once."""
    pool = await make_pool()
    await pool.owe(OTHER, 20 * MILLI)
    used = replace(foreign_transaction(nonce=0), to=address("nobody"))
    signed = await pool.signer.sign(used)
    await evm.rpc("eth_sendRawTransaction", f"0x{signed.raw.hex()}")
    await evm.mine()
    await pool.tick()
    await pool.payer.resume()  # the operator knows that the wallet was used before
    faulty.on("eth_getTransactionCount", lie(lambda told: hex(max(int(told, 16) + off, 0))))
    for _ in range(4):
        await pool.tick(8 * MINUTE_MS)
    await pool.crash()
    await pool.tick(MINUTE_MS)
    assert not pool.payer.journal.book.ended
    faulty.heal()
    await pool.settle()
    assert (await pool.got(PAYEE), await pool.got(OTHER)) == (50 * MILLI, 20 * MILLI)
    assert not pool.payer.journal.book.paused


async def test_endpoints_that_disagree(
    evm: Evm, make_pool: MakePool, make_faulty: MakeFaulty, other_anvil_url: str
) -> None:
    """One of three endpoints follows another history, or lags, or lies: the others decide. With
    two, nothing is done until they agree."""
    three = [await make_faulty() for _ in range(3)]
    three[0].upstream = other_anvil_url
    async with open_chain([e.url for e in three], chain_id=CHAIN_ID, agree=2) as chain:
        pool = await make_pool(chain=chain)
        await pool.settle()
        assert await pool.got(PAYEE) == 50 * MILLI
    three[1].lag = 2
    two = [three[1].url, three[2].url]
    async with open_chain(two, chain_id=CHAIN_ID, agree=2) as chain:
        pool.chain = chain
        await pool.crash()
        await pool.owe(PAYEE, 20 * MILLI)
        await pool.settle()
        assert await pool.got(PAYEE) == 70 * MILLI


async def test_paused(evm: Evm, make_pool: MakePool) -> None:
    """The brake: nothing new is signed; what is on its way is followed to its end."""
    pool = await make_pool()
    await pool.tick()
    await pool.payer.pause("Checking something.")
    await pool.owe(OTHER, 20 * MILLI)
    await pool.settle()
    assert (await pool.got(PAYEE), await pool.got(OTHER)) == (50 * MILLI, 0)
    await pool.crash()
    await pool.tick()
    plan = pool.payer.last_plan
    assert plan is not None
    assert plan.waiting[0].why == "Payouts are paused: Checking something."
    await pool.payer.resume()
    await pool.settle()
    assert await pool.got(OTHER) == 20 * MILLI
