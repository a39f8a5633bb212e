"""Fees in ETH for owners who want LPT: from LPT that the pool has to spare, else from the market.

One exchange at a time, at most so much of it; what it brought is read from the token's own event.
What may be accepted is decided in `core.money.swap`. Afterwards the LPT is owed like any other
(`treasury.lpt` pays it). Must not sign; converting writes one fact, which moves both sides at once.
"""

from collections.abc import AsyncIterator, Callable
from fractions import Fraction

from openpool.chain.contracts import Swap, Token
from openpool.chain.interface import Call, Livepeer, Receipt, Reverted
from openpool.core.errors import BadMessage
from openpool.core.money.accounts import LPT, WORKER, worker_account
from openpool.core.money.events import LptConverted, OrderLine
from openpool.core.money.payout_plan import Payment, Plan, Rules, Standing, plan
from openpool.core.money.payouts import Fees
from openpool.core.money.swap import (
    Convert,
    Exchange,
    Refuse,
    SwapRules,
    from_market,
    from_spare,
)
from openpool.treasury.journal import Journal
from openpool.treasury.market import Market, average_lpt
from openpool.treasury.planner import Planner, Prepared, price_wei
from openpool.treasury.sender import Sender, TooMuchGas
from openpool.treasury.sights import Look

FEE_TIER = 3_000
"""Of the market's pool: 0.3 %."""
GAS = 200_000
"""About what an exchange costs, to see whether it is worth it."""
IN_LPT = "Its owner is paid in LPT: the fees are exchanged first."


class Swaps:
    """Exchanges fees. Implements `treasury.payer.Part`."""

    def __init__(
        self,
        *,
        sender: Sender,
        planner: Planner,
        journal: Journal,
        livepeer: Livepeer,
        market: Market,
        rules: SwapRules,
    ) -> None:
        self._sender, self._planner, self._journal = sender, planner, journal
        self._livepeer = livepeer
        self._market, self._rules = market, rules
        self.why = ""
        """Why nothing is exchanged at the moment."""

    def elsewhere(self) -> dict[str, str]:
        """Who is not paid in ETH."""
        choices = self._journal.book.choices
        said = f"{IN_LPT} {self.why}".strip()
        return {address: said for address, chosen in choices.items() if chosen.asset == "LPT"}

    def shown(self) -> list[tuple[Plan, Rules]]:
        """None: who waits for an exchange is in the plan of payouts in ETH."""
        return []

    async def rehearse(self, look: Look, fees: Fees, now_ms: int) -> None:
        """Nothing: see `shown`."""

    async def due(
        self, name: Callable[[], str], look: Look, fees: Fees, now_ms: int
    ) -> AsyncIterator[Prepared]:
        """Convert what can be converted, and exchange the rest together."""
        self.why = ""
        if any(order.kind == "swap" for order in self._journal.book.open.values()):
            return
        payments = await self._payments(look, fees, now_ms)
        if not payments:
            return
        try:
            spare_lpt = await self._spare_lpt()  # first: it finds the contracts
            average = await average_lpt(self._sender.chain, self._market, self._token)
            left = await self._convert(payments, average, spare_lpt, now_ms)
            prepared = await self._exchange(name(), left, average) if left else None
        except (Reverted, TooMuchGas, BadMessage) as error:
            self.why = f"The market cannot be used: {error}"
            return
        if prepared is not None:
            yield prepared

    async def _payments(self, look: Look, fees: Fees, now_ms: int) -> tuple[Payment, ...]:
        """Who is due, by the same rules as everybody."""
        wanted, book = self.elsewhere(), self._journal.book
        if not wanted:
            return ()
        owed = await self._journal.owed(WORKER)
        standing = Standing(
            owed={address: wei for address, wei in owed.items() if address in wanted},
            funds_wei=await self._planner.funds_wei(),
            gas_wei=GAS * price_wei(look),
            gas_most_wei=self._sender.limit(GAS) * fees.max_fee_wei,
            spent_wei=book.spent_wei(now_ms),
            choices=book.choices,
            blocked=book.blocked,
            busy=self._planner.busy(),
            last_paid=book.last_paid,
            paused="" if book.paused is None else book.paused.reason,
        )
        return plan("ETH", self._planner.options.rules, standing).payments

    @property
    def _token(self) -> str:
        return self._livepeer.addresses["LivepeerToken"]

    async def _convert(
        self, payments: tuple[Payment, ...], average: Fraction, spare_lpt: int, now_ms: int
    ) -> list[Payment]:
        """Give LPT that nobody is owed, at the average price; who is left over."""
        left = []
        for payment in payments:
            converted = from_spare(payment.amount_wei, average, spare_lpt)
            if converted is None:
                left.append(payment)
                continue
            spare_lpt -= converted.amount_lpt
            await self._book(payment, converted, now_ms)
        return left

    async def _book(self, payment: Payment, converted: Convert, now_ms: int) -> None:
        account = worker_account(payment.address)
        async with self._journal.spending:
            if not await self._journal.covers({account: payment.amount_wei}):
                return
            await self._journal.record(
                LptConverted(
                    conversion=f"{payment.address}/{now_ms}",
                    account=account,
                    amount_wei=str(payment.amount_wei),
                    amount_lpt=str(converted.amount_lpt),
                    lpt_per_eth=str(Fraction(converted.amount_lpt, payment.amount_wei)),
                )
            )

    async def _spare_lpt(self) -> int:
        """The wallet's LPT, less what is owed to workers or on its way to them."""
        balance = await self._livepeer.lpt_balance(self._sender.wallet)
        owed = sum((await self._journal.owed(LPT + WORKER)).values())
        orders = self._journal.book.open.values()
        return balance - owed - sum(o.amount_wei for o in orders if o.asset == "LPT")

    async def _exchange(
        self, name: str, payments: list[Payment], average: Fraction
    ) -> Prepared | None:
        lines = self._lines(payments)
        amount_wei = sum(int(line.send_wei) for line in lines)
        decided = from_market(amount_wei, await self._quote(amount_wei), average, self._rules)
        if isinstance(decided, Refuse):
            self.why = decided.why
            return None
        call = await self._call(amount_wei, decided)
        gas_limit = self._sender.limit(await self._sender.estimate(call))
        planned = self._planner.planned(
            name, "swap", call.to, call.value_wei, lines, data=call.data
        )
        return Prepared(planned=planned, gas_limit=gas_limit)

    def _lines(self, payments: list[Payment]) -> list[OrderLine]:
        """As many as fit into one exchange; of the last one a part, if need be."""
        left, lines = self._rules.most_wei, []
        for payment in payments:
            amount_wei = min(payment.amount_wei, left)
            if amount_wei <= 0:
                break
            left -= amount_wei
            lines.append(
                OrderLine(
                    account=worker_account(payment.address),
                    address=payment.address,
                    amount_wei=str(amount_wei),
                    send_wei=str(amount_wei),
                )
            )
        return lines

    async def _quote(self, amount_wei: int) -> int:
        asked = (self._market.weth, self._token, amount_wei, FEE_TIER, 0)
        call = Call(to=self._market.quoter, data=Swap.quote.encode(asked))
        return int(Swap.quote.decode(await self._sender.chain.call(call))[0])

    async def _call(self, amount_wei: int, decided: Exchange) -> Call:
        """With the chain's own time, since that is what the deadline is compared with."""
        now = await self._sender.chain.block()
        asked = (
            self._market.weth,
            self._token,
            FEE_TIER,
            self._sender.wallet,
            now.time_s + self._rules.deadline_ms // 1000,
            amount_wei,
            decided.minimum_lpt,
            0,
        )
        data = Swap.exact_input_dated.encode(asked)
        return Call(to=self._market.router, data=data, value_wei=amount_wei)


def received_lpt(receipt: Receipt, token: str, wallet: str) -> int:
    """The LPT that a transaction brought to the wallet, by the token's own events."""
    total = 0
    for each in receipt.logs:
        if each.address == token and each.topics[:1] == (Token.transferred.topic,):
            _, to, amount = Token.transferred.decode(each.topics, each.data)
            total += int(amount) if to == wallet else 0
    return total
