"""Whom to ask, and whom to believe: several endpoints of one chain.

`any` takes the first usable answer; `agreed` wants the same one from as many endpoints as decide.
An endpoint that fails, or answers with nonsense, is passed over and asked last next time. Must not
know what is asked.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from openpool.chain.interface import ChainUnavailable, Disagreement, WrongChain
from openpool.chain.rpc import Endpoint, EndpointFault, RpcError
from openpool.core.errors import BadMessage

logger = structlog.get_logger()

T = TypeVar("T")
Ask = Callable[[Endpoint], Awaitable[T]]

RATE_LIMIT = re.compile(r"rate.?limit|too many requests|per second|over quota", re.IGNORECASE)
ROUNDS = 2
"""How often all are asked before one gives up."""
PAUSE_S = 0.1
PATIENCE_S = 10.0
"""The longest wait for endpoints that want to be left alone."""


class Endpoints:
    """At least one."""

    def __init__(self, endpoints: Sequence[Endpoint], *, agree: int) -> None:
        self.all = tuple(endpoints)
        self.need = max(min(agree, len(self.all)), 1)

    async def any(self, ask: Ask[T]) -> T:
        """The first answer. Raises ChainUnavailable, or WrongChain if that is all there is."""
        faults: dict[str, ChainUnavailable | WrongChain] = {}
        for attempt in range(ROUNDS):
            if attempt:
                await asyncio.sleep(self._pause_s())
            for endpoint in self._preferred():
                answer = await self._try(endpoint, ask)
                if not isinstance(answer, ChainUnavailable | WrongChain):
                    return answer
                faults[endpoint.name] = answer
        raise self._unavailable(faults, needed=1, had=0)

    async def answers(self, ask: Ask[T]) -> list[tuple[Endpoint, T]]:
        """Everybody's. Raises ChainUnavailable unless enough of them answered."""
        if len(self.all) == 1:
            return [(self.all[0], await self.any(ask))]
        faults: dict[str, ChainUnavailable | WrongChain] = {}
        found: list[tuple[Endpoint, T]] = []
        for endpoint, answer in await self._each(self.all, ask):
            if isinstance(answer, ChainUnavailable | WrongChain):
                faults[endpoint.name] = answer
            else:
                found.append((endpoint, answer))
        if len(found) < self.need:
            raise self._unavailable(faults, needed=self.need, had=len(found))
        return found

    async def agreed(self, ask: Ask[T], *, key: Callable[[T], object] = lambda x: x) -> T:
        """What enough of them say alike. Raises Disagreement or ChainUnavailable."""
        if self.need == 1:
            return await self.any(ask)
        faults: dict[str, ChainUnavailable | WrongChain] = {}
        votes: list[tuple[object, Endpoint]] = []
        waiting = self._preferred()
        ask_now = self.need
        while waiting:
            asked, waiting = waiting[:ask_now], waiting[ask_now:]
            for endpoint, answer in await self._each(asked, ask):
                if isinstance(answer, ChainUnavailable | WrongChain):
                    faults[endpoint.name] = answer
                    continue
                votes.append((key(answer), endpoint))
                if sum(vote == key(answer) for vote, _ in votes) >= self.need:
                    return answer
            ask_now = 1
        if any(vote != votes[0][0] for vote, _ in votes):
            raise self._contradiction([endpoint for _, endpoint in votes])
        raise self._unavailable(faults, needed=self.need, had=len(votes))

    def contradiction(self) -> Disagreement:
        """They say different things about the same fact."""
        return self._contradiction(list(self.all))

    def _contradiction(self, who: list[Endpoint]) -> Disagreement:
        names = ", ".join(each.name for each in who)
        logger.warning("endpoints-disagree", endpoints=names)
        return Disagreement(
            f"Endpoints of the chain contradict each other ({names}); nothing is done until they "
            "agree. Remove the one that is wrong from chain.endpoints."
        )

    async def _each(
        self, who: Sequence[Endpoint], ask: Ask[T]
    ) -> list[tuple[Endpoint, T | ChainUnavailable | WrongChain]]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._try(endpoint, ask)) for endpoint in who]
        return [(endpoint, task.result()) for endpoint, task in zip(who, tasks, strict=True)]

    async def _try(self, endpoint: Endpoint, ask: Ask[T]) -> T | ChainUnavailable | WrongChain:
        try:
            return await ask(endpoint)
        except (ChainUnavailable, WrongChain) as error:
            return error
        except BadMessage as error:
            return endpoint.blame(str(error))
        except RpcError as error:
            if RATE_LIMIT.search(error.message):
                return endpoint.rest()
            return EndpointFault(f"The endpoint {endpoint.name} said no: {error.message}.")

    def _preferred(self) -> list[Endpoint]:
        return sorted(self.all, key=lambda each: (each.rests_s > 0, each.failures))

    def _pause_s(self) -> float:
        return max(PAUSE_S, min(min(each.rests_s for each in self.all), PATIENCE_S))

    def _unavailable(
        self, faults: dict[str, ChainUnavailable | WrongChain], *, needed: int, had: int
    ) -> ChainUnavailable | WrongChain:
        if faults and all(isinstance(fault, WrongChain) for fault in faults.values()):
            return next(iter(faults.values()))
        said = " ".join(str(fault) for fault in faults.values())
        if needed == 1:
            return ChainUnavailable(f"No endpoint of the chain gave an answer. {said}")
        return ChainUnavailable(
            f"Only {had} of the {needed} endpoints that must agree answered. {said}"
        )
