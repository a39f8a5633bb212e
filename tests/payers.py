"""A pool that owes money on a real local chain, its payer, and a knife that ends it at any step."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from openpool.chain.client import EthereumChain
from openpool.chain.interface import Livepeer
from openpool.core.events import Event
from openpool.core.money.accounts import worker_account
from openpool.core.money.events import CorrectionMade
from openpool.core.money.payout_plan import Rules
from openpool.core.money.payouts import Patience
from openpool.core.units import ETHER, GWEI
from openpool.demo.evm import Evm
from openpool.store.replay import check
from openpool.store.sqlite import SqliteStore
from openpool.treasury.payer import Payer, PayerOptions
from openpool.treasury.planner import PlannerOptions

MILLI = ETHER // 1000
MINUTE_MS = 60_000
OPTIONS = PayerOptions(
    mode="on",
    planner=PlannerOptions(rules=Rules(threshold_wei=MILLI, minimum_wei=MILLI)),
    patience=Patience(max_fee_max_wei=1000 * GWEI),
    every_ms=1,
)


class Killed(BaseException):
    """The process is gone."""


class Knife:
    """Counts the steps to the outside, and kills at one of them."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.word = ""
        self.dead = False
        self.steps: list[str] = []

    def kill_at(self, word: str) -> None:
        """Kill at the next step of this name."""
        self.word = word

    def step(self, name: str) -> None:
        if not self.dead:
            self.steps.append(name)
        self.dead = self.dead or len(self.steps) == self.at or name == self.word
        if self.dead:
            raise Killed(name)


class CutChain:
    """A chain, every question to which is a step; after a transaction went out, too."""

    def __init__(self, chain: EthereumChain, knife: Knife) -> None:
        self._chain, self._knife = chain, knife
        self.chain_id = chain.chain_id

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._chain, name)

        async def ask(*args: Any, **kwargs: Any) -> Any:
            self._knife.step(f"before {name}")
            answer = await method(*args, **kwargs)
            if name == "send":
                self._knife.step("after send")
            return answer

        return ask


class CutStore:
    """A store, where writing is three steps: before it, written, on disk."""

    def __init__(self, store: SqliteStore, knife: Knife) -> None:
        self._store, self._knife = store, knife
        self.events, self.balances = store.events, store.balances

    def append(self, events: Sequence[Event]) -> "CutStore":
        what = " ".join(event.type for event in events)
        self._knife.step(f"before {what}")
        self._receipt = self._store.append(events)
        self._knife.step(f"after {what}")
        return self

    async def durable(self) -> None:
        await self._receipt.durable()
        self._knife.step("on disk")


class CutSigner:
    """A signer, where a signature is made, or made and lost."""

    def __init__(self, signer: Any, knife: Knife) -> None:
        self._signer, self._knife = signer, knife
        self.address = signer.address

    async def sign(self, transaction: Any) -> Any:
        signed = await self._signer.sign(transaction)
        self._knife.step("signed")
        return signed

    async def sign_text(self, text: str) -> str:
        raise NotImplementedError


class Pool:
    """Its log lives in a folder; everything else goes with `crash`."""

    def __init__(
        self,
        folder: Path,
        evm: Evm,
        chain: EthereumChain,
        signer: Any,
        options: PayerOptions = OPTIONS,
        equip: Callable[[Payer], None] | None = None,
        livepeer: Livepeer | None = None,
    ) -> None:
        """`equip` gives the payer further parts after each start."""
        self.folder, self.evm, self.chain, self.signer = folder, evm, chain, signer
        self.options, self.equip, self.livepeer = options, equip, livepeer
        self.now_ms = 10_000_000
        self.owed: dict[str, int] = {}
        self.knife = Knife()

    async def open(self) -> "Pool":
        self.store = SqliteStore(self.folder)
        self.payer = Payer(
            chain=CutChain(self.chain, self.knife),
            signer=CutSigner(self.signer, self.knife),
            store=CutStore(self.store, self.knife),
            clock_ms=lambda: self.now_ms,
            options=self.options,
            livepeer=self.livepeer,
        )
        if self.equip:
            self.equip(self.payer)
        await self.payer.start()
        return self

    async def crash(self) -> None:
        """Lose all memory, and start again."""
        self.store.close()
        self.knife = Knife()
        await self.open()

    async def owe(self, address: str, amount_wei: int, account: str = "") -> None:
        self.owed[address] = self.owed.get(address, 0) + amount_wei
        number = len(self.owed) * 1000 + self.now_ms
        fact = CorrectionMade(
            correction=f"c{number}",
            corrects="",
            debit="lpt/operator" if account.startswith("lpt/") else "operator",
            credit=account or worker_account(address),
            amount_wei=str(amount_wei),
            reason="work",
        )
        await self.store.append(
            [Event(id=f"c/{address}/{number}", time_ms=self.now_ms, data=fact)]
        ).durable()

    async def tick(self, wait_ms: int = 1_000) -> None:
        self.now_ms += wait_ms
        await self.payer.tick_safely()

    async def settle(self, ticks: int = 40, wait_ms: int = MINUTE_MS) -> None:
        """An honest chain and time, until nothing is on its way and nothing is due."""
        for _ in range(ticks):
            await self.tick(wait_ms)
            if not self.payer.journal.book.open and self.payer.last_plan is not None:
                plan = self.payer.last_plan
                waits = plan.payments or plan.missing_wei
                if not waits:
                    return
            await self.evm.finalize()
        raise AssertionError(f"not settled: {self.payer.problem}, {self.payer.journal.book.open}")

    async def got(self, address: str) -> int:
        return await self.evm.balance(address)

    def balance(self, account: str) -> int:
        return {b.account: b.amount_wei for b in self.store.balances()}.get(account, 0)

    def close(self) -> None:
        """Ends with the proof that log and books agree."""
        self.store.close()
        assert check(self.folder).faults == ()
