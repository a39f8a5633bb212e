"""Closes rounds that are over: shares the reward, reconciles the claim. Chain or clock alike.

A round is closed by one transaction that follows from the log before the next `round-started`
alone, so it is the same after a crash, and its `revenue-reconciled` tells others that nothing of
this round is still to come.
"""

from collections.abc import Callable, Collection

from openpool.core.events import AnyPayload, Event
from openpool.core.money.events import RevenueReconciled, RewardShared
from openpool.core.money.reconcile import Figures, explanation
from openpool.core.money.revenue import Round, Standing
from openpool.core.money.rewards import share_reward
from openpool.treasury.books import RevenueBooks


class Closing:
    """For the orchestrators of the settings."""

    def __init__(
        self,
        *,
        books: RevenueBooks,
        orchestrators: Collection[str],
        clock_ms: Callable[[], int],
        lpt_share_ppm: int = 0,
    ) -> None:
        """`lpt_share_ppm` is the workers' part of the orchestrator's own reward."""
        self._books = books
        self._orchestrators = tuple(orchestrators)
        self._clock_ms = clock_ms
        self.lpt_share_ppm = lpt_share_ppm

    async def close(self) -> None:
        """Close every round that is over and not closed yet."""
        revenue = await self._books.refresh()
        if revenue.round is None:
            return
        for name in self._orchestrators:
            standing = revenue.standing(name)
            for row in standing.unclosed(revenue.round.number):
                await self._books.write(await self._closed(standing, row))

    async def _closed(self, standing: Standing, row: Round) -> list[Event]:
        name, prefix = standing.orchestrator, f"round/{standing.orchestrator}/{row.number}"
        parts = share_reward(row.reward_own_lpt, self.lpt_share_ppm, row.work_wei)
        facts: list[tuple[str, AnyPayload]] = [
            (
                f"{prefix}/reward/{address}",
                RewardShared(
                    orchestrator=name, round=row.number, address=address, amount_lpt=str(lpt)
                ),
            )
            for address, lpt in parts.items()
        ]
        facts.append((f"{prefix}/reconciled", await self._reconciled(standing, row)))
        now_ms = self._clock_ms()
        return [Event(id=id_, time_ms=now_ms, data=data) for id_, data in facts]

    async def _reconciled(self, standing: Standing, row: Round) -> RevenueReconciled:
        books_wei = await self._books.claim_wei(standing.orchestrator)
        is_followed = bool(standing.address)
        chain_wei = standing.pending_wei if is_followed else books_wei
        figures = Figures(
            expected=row.expected_wei,
            face=row.wins.face_wei,
            paid=row.paid_wei,
            realised=row.realised_wei,
            difference=chain_wei - books_wei,
        )
        return RevenueReconciled(
            orchestrator=standing.orchestrator,
            round=row.number,
            expected_wei=str(row.expected_wei),
            realised_wei=str(row.realised_wei),
            claim_chain_wei=str(chain_wei),
            claim_books_wei=str(books_wei),
            difference_wei=str(chain_wei - books_wei),
            explanation=explanation(figures, is_followed=is_followed),
        )
