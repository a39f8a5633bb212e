"""The payer against a chain that forgets, undoes, replaces and lies, with a crash at any moment.

Whatever happens, nobody is paid twice; and once the chain is well again, everybody is paid once.
Nobody has to do anything, but for one case: the wallet was used elsewhere while the pool was down,
which looks like an old copy of the log. Then the operator says to go on.
"""

import asyncio

from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from modelchain import ModelChain, ModelSigner

from openpool.core.events import Event
from openpool.core.money.accounts import worker_account
from openpool.core.money.events import CorrectionMade
from openpool.core.money.payout_plan import Rules
from openpool.core.money.payouts import Patience
from openpool.store.memory import MemoryStore
from openpool.treasury.payer import Payer, PayerOptions
from openpool.treasury.planner import PlannerOptions

GWEI = 10**9
MILLI = 10**15
PAYEES = [f"0x{number:040d}" for number in range(101, 106)]  # digits have no checksum
OPTIONS = PayerOptions(
    mode="on",
    planner=PlannerOptions(
        rules=Rules(
            threshold_wei=MILLI,
            minimum_wei=1,
            gas_share_max_ppm=10**6,
            # what a limit leaves over would wait for a threshold, or for a day, that never comes
            per_payout_max_wei=1_000_000 * MILLI,
            per_day_max_wei=1_000_000 * MILLI,
        )
    ),
    patience=Patience(max_fee_max_wei=1000 * GWEI),
    every_ms=1,
)


class World:
    """A pool that owes money, its chain, and its payer, which may be started again."""

    def __init__(self, options: PayerOptions = OPTIONS) -> None:
        self.now_ms = 1_000_000
        self.signer = ModelSigner()
        self.chain = ModelChain(self.signer)
        self.store = MemoryStore()
        self.options = options
        self.owed: dict[str, int] = {}
        self.ran = asyncio.Runner()
        self.restart()

    def restart(self) -> None:
        """All memory is lost; the log and the chain are not."""
        self.payer = Payer(
            chain=self.chain,
            signer=self.signer,
            store=self.store,
            clock_ms=lambda: self.now_ms,
            options=self.options,
        )
        self.ran.run(self.payer.start())

    def owe(self, address: str, amount_wei: int) -> None:
        self.owed[address] = self.owed.get(address, 0) + amount_wei
        fact = CorrectionMade(
            correction=f"c{self.now_ms}",
            corrects="",
            debit="operator",
            credit=worker_account(address),
            amount_wei=str(amount_wei),
            reason="work",
        )
        self.store.append([Event(id=f"c/{address}/{self.now_ms}", time_ms=self.now_ms, data=fact)])

    def tick(self, wait_ms: int = 1_000) -> None:
        self.now_ms += wait_ms
        self.ran.run(self.payer.tick_safely())

    def balance(self, account: str) -> int:
        return {b.account: b.amount_wei for b in self.store.balances()}.get(account, 0)

    def paid(self, address: str) -> int:
        return sum(self.chain.paid().get(address, []))

    def settle(self) -> None:
        """An honest chain that works, and time."""
        chain = self.chain
        chain.nonce_lie, chain.blind, chain.down, chain.lost_answers = 0, False, False, 0
        chain.base_fee_wei = GWEI
        for _ in range(60):
            self.tick(120_000)
            chain.mine()
            chain.finalise()
            if not self.payer.journal.book.open and not any(
                self.balance(worker_account(a)) for a in self.owed
            ):
                return

    def close(self) -> None:
        self.ran.close()


class PayoutMachine(RuleBasedStateMachine):
    """Everything that may happen, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def teardown(self) -> None:
        try:
            self.check_the_end(self.world)
        finally:
            self.world.close()

    def check_the_end(self, world: World) -> None:
        world.settle()
        book = world.payer.journal.book
        assert not book.paused
        if world.payer.held:  # used elsewhere while the pool was down: the operator has looked
            world.ran.run(world.payer.resume())
            world.settle()
        assert not book.open, [o.state for o in book.open.values()]
        for address, owed in world.owed.items():
            assert world.paid(address) == owed
            assert world.balance(worker_account(address)) == 0
        assert world.balance("in-flight") == 0
        spent = world.chain.funds_wei - world.ran.run(world.chain.balance(""))
        foreign = sum(
            m.price_wei * 21_000 for b in world.chain.blocks for m in b if is_foreign(m.raw)
        )
        assert world.balance(f"wallet:{world.signer.address}") == spent - foreign

    @rule(payee=strategies.sampled_from(PAYEES), milli=strategies.integers(1, 500))
    def earn(self, payee: str, milli: int) -> None:
        self.world.now_ms += 1
        self.world.owe(payee, milli * MILLI + 1)

    @rule(wait_ms=strategies.sampled_from([1_000, 61_000, 301_000, 700_000]))
    def look(self, wait_ms: int) -> None:
        self.world.tick(wait_ms)

    @rule()
    def crash(self) -> None:
        self.world.restart()

    @rule(most=strategies.integers(1, 3))
    def mine(self, most: int) -> None:
        self.world.chain.mine(most)

    @rule(depth=strategies.integers(0, 3))
    def finalise(self, depth: int) -> None:
        self.world.chain.finalise(depth)

    @rule(depth=strategies.integers(1, 4), keep=strategies.booleans())
    def reorganise(self, depth: int, keep: bool) -> None:
        self.world.chain.reorganise(depth, keep=keep)

    @rule()
    def forget_mempool(self) -> None:
        self.world.chain.mempool.clear()

    @rule()
    def use_nonce_elsewhere(self) -> None:
        self.world.chain.use_nonce_elsewhere()

    @rule(gwei=strategies.sampled_from([1, 3, 20, 900]))
    def base_fee(self, gwei: int) -> None:
        self.world.chain.base_fee_wei = gwei * GWEI

    @rule(lie=strategies.sampled_from([-3, -1, 1, 2, 50]))
    def lie_about_nonces(self, lie: int) -> None:
        self.world.chain.nonce_lie = lie
        self.world.tick(200_000)
        self.world.chain.nonce_lie = 0

    @rule(lie=strategies.sampled_from([1, 3]), looks=strategies.integers(1, 6))
    def go_on_lying_about_nonces(self, lie: int, looks: int) -> None:
        self.world.chain.nonce_lie = lie
        for _ in range(looks):
            self.world.tick(400_000)
        self.world.chain.nonce_lie = 0

    @rule()
    def hide_receipts(self) -> None:
        self.world.chain.blind = True
        self.world.tick(400_000)
        self.world.chain.blind = False
        self.world.tick(1_000)

    @rule(answers=strategies.integers(1, 3))
    def lose_answers(self, answers: int) -> None:
        self.world.chain.lost_answers = answers

    @rule()
    def be_down(self) -> None:
        self.world.chain.down = True
        self.world.tick()
        self.world.chain.down = False

    @precondition(lambda self: self.world.owed)
    @invariant()
    def nobody_gets_too_much(self) -> None:
        for address in PAYEES:
            assert self.world.paid(address) <= self.world.owed.get(address, 0)

    @invariant()
    def the_books_add_up(self) -> None:
        totals = self.world.store.balances()
        assert sum(b.amount_wei for b in totals) == 0
        assert all(b.amount_wei >= 0 for b in totals if b.account.startswith("worker:"))


def is_foreign(raw: bytes) -> bool:
    return raw.startswith(b"foreign")


TestPayouts = PayoutMachine.TestCase
TestPayouts.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
