"""Watches that reward is called in each round, and calls it where the settings say so.

The call is an order like any other (`treasury.payer` carries it out); here is only decided when
one is due. What a missed reward costs is gone for good, so it is asked for early in the round.
"""

import asyncio
from collections.abc import Mapping

import structlog

from openpool.chain import contracts
from openpool.chain.interface import Livepeer, OrchestratorState, Round
from openpool.core.money.revenue_views import RewardView
from openpool.core.money.rewards import passed_ppm, reward_level
from openpool.treasury.faults import CHAIN_FAULTS, Trouble
from openpool.treasury.interface import Orders

log = structlog.get_logger()

TRIES = 3
"""How often it is tried in a round, if the call fails on chain."""


class RewardWatch:
    """The orchestrators of the settings that have an address."""

    def __init__(
        self,
        *,
        livepeer: Livepeer,
        orchestrators: Mapping[str, str],
        late_ppm: int,
        orders: Orders | None = None,
        wallet: str = "",
        poll_s: float = 30.0,
    ) -> None:
        """`late_ppm`: the part of a round after which a missing reward is worth a warning.
        `orders` is None if the pool does not call reward, else `wallet` is who would."""
        self._livepeer = livepeer
        self._orchestrators = dict(orchestrators)
        self._late_ppm = late_ppm
        self._orders = orders
        self._wallet = wallet
        self._poll_s = poll_s
        self._trouble = Trouble("reward-not-watched")
        self._warned: set[tuple[str, int]] = set()
        self.views: dict[str, RewardView] = {}
        """How it stands, by orchestrator."""

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self.look()
            # who called, and whether a round has begun, must be asked for
            await asyncio.sleep(self._poll_s)

    async def look(self) -> None:
        """See who has called, and call."""
        try:
            now = await self._livepeer.round()
            for name, address in self._orchestrators.items():
                state = await self._livepeer.orchestrator(address)
                text = await self._call(name, state, now)
                self.views[name] = self._view(state, now, text)
                self._warn(name, self.views[name])
            self._trouble.over()
        except CHAIN_FAULTS as error:
            self._trouble.tell(error)

    def _view(self, state: OrchestratorState, now: Round, text: str) -> RewardView:
        passed = passed_ppm(now.block, now.start_block, now.length)
        is_due = _is_due(state, now)
        return RewardView(
            round=now.number,
            active=state.active,
            called=state.last_reward_round >= now.number,
            passed_ppm=passed,
            level=reward_level(passed_ppm=passed, late_ppm=self._late_ppm) if is_due else "ok",
            text=text,
        )

    def _warn(self, name: str, view: RewardView) -> None:
        if view.level != "ok" and (name, view.round) not in self._warned:
            self._warned.add((name, view.round))
            log.warning("reward-late", orchestrator=name, round=view.round, text=view.text)

    async def _call(self, name: str, state: OrchestratorState, now: Round) -> str:
        """Have reward called if it is ours to call; how things stand, in a sentence."""
        if not state.active:
            return "It is not active in this round, so there is no reward."
        if state.last_reward_round >= now.number:
            return "It was called."
        if self._orders is None:
            return "The pool does not call it; check the orchestrator's own node (-reward)."
        if not now.initialized:
            return "Nobody has initialized this round yet; until then it cannot be called."
        data = self._data(state)
        if data is None:
            return (
                f"The wallet {self._wallet} may not call it: send setRewardCaller({self._wallet}) "
                f"from {state.address}, or set lpt.call_reward to false."
            )
        return await self._planned(self._orders, f"reward/{name}/{now.number}", data)

    async def _planned(self, orders: Orders, order: str, data: bytes) -> str:
        """Plan it, and again where it failed for certain; what became of it."""
        reason = ""
        for name in (order, *(f"{order}/{n}" for n in range(2, TRIES + 1))):
            known = orders.order(name)
            if known is not None and known.state == "voided":
                reason = known.reason
                continue
            await orders.plan(
                order=name,
                kind="reward",
                to=self._livepeer.addresses["BondingManager"],
                data=data,
                note=f"calls reward, as {name}",
            )
            return f"The pool is calling it (order {name})."
        return f"The pool has tried {TRIES} times to call it, and failed: {reason}"

    def _data(self, state: OrchestratorState) -> bytes | None:
        if self._wallet == state.address:
            return contracts.BondingManager.reward.encode()
        if self._wallet and self._wallet == state.reward_caller:
            return contracts.BondingManager.reward_for.encode(state.address)
        return None


def _is_due(state: OrchestratorState, now: Round) -> bool:
    return state.active and state.last_reward_round < now.number
