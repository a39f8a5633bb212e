"""`openpool serve` dies by kill -9 in the middle of a payout run, again and again; nobody is paid
twice, and nobody is forgotten."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import httpx
from evm import *  # noqa: F403
from evm import Ask, Faulty
from moneypool import *  # noqa: F403
from moneypool import Ground, money_pool, replayed
from revenueworld import credit

from openpool.core.units import ETHER
from openpool.demo.evm import address
from openpool.demo.orchestrator import StandIn

PAYEES = tuple(f"payee {number}" for number in range(6))
KILLS = 8
QUESTIONS_MAX = 10
"""So many of those below does a life ask at most, once its payout run has begun."""
ASKED_TO_PAY = ("eth_estimateGas", "eth_getCode", "eth_sendRawTransaction")
LIMIT_S = 60


def owed_wei(number: int) -> int:
    return (number + 1) * ETHER // 100


class Knife:
    """Kills the pool at the n-th question of a payout run, before or after it is answered."""

    def __init__(self, faulty: Faulty) -> None:
        self.faulty = faulty
        self.runs = False
        self.left = 0
        self.after = False
        self.fallen = asyncio.Event()
        self.process: Process | None = None
        faulty.on("*", self.answer)

    def hold(self, process: Process, questions: int, *, after: bool) -> None:
        self.process, self.left, self.after = process, questions, after
        self.runs = False
        self.fallen.clear()

    async def answer(self, ask: Ask) -> dict[str, object]:
        method, _ = self.faulty.seen[-1]
        self.runs = self.runs or method == "eth_estimateGas"
        self.left -= self.runs and method in ASKED_TO_PAY
        if self.left or self.process is None:
            return await ask()
        told = await ask() if self.after else {"result": None}
        self._cut(self.process)
        return told

    def _cut(self, process: Process) -> None:
        # once: a second kill would reap the dead process before asyncio has seen its exit status
        if not self.fallen.is_set():
            process.kill()
        self.fallen.set()


async def start(config: Path, log: Path) -> tuple[Process, dict[str, str]]:
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "openpool", "serve", "--json", "-c", str(config)),
            stdout=PIPE,
            stderr=errors,
        )
    assert process.stdout is not None
    return process, json.loads(await asyncio.wait_for(process.stdout.readline(), LIMIT_S))


async def until(holds: Callable[[], Awaitable[bool]], ground: Ground) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not await holds():
            await ground.evm.mine()
            await asyncio.sleep(0.1)


async def test_each_payee_is_paid_once_over_many_kills(ground: Ground, faulty: Faulty) -> None:
    """Eight kills at random questions to the chain, seeded; in the end everybody has what was owed,
    to the wei, and log and books agree."""
    random, knife = Random(20), Knife(faulty)
    settings = ground.chain(faulty.url) + ground.payouts()
    async with StandIn("o-secret") as orchestrator:
        async with money_pool(ground, orchestrator, settings.replace('"on"', '"off"')) as money:
            facts = [credit(f"j{n}", owed_wei(n), address(who)) for n, who in enumerate(PAYEES)]
            await money.running.store.append(facts).durable()
        config = ground.folder / "openpool.yaml"
        config.write_text(config.read_text().replace('mode: "off"', 'mode: "on"'))
        log = ground.folder / "serve.log"
        killed, sent = 0, []
        for _ in range(KILLS):
            process, _ = await start(config, log)
            knife.hold(process, random.randint(1, QUESTIONS_MAX), after=random.random() < 0.5)
            async with asyncio.timeout(LIMIT_S):
                while not knife.fallen.is_set():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            killed += await process.wait() == -9
            sent.append(faulty.count("eth_sendRawTransaction"))
            await ground.evm.mine(random.randint(0, 2) or 1)
        knife.process = None
        process, said = await start(config, log)
        await finished(ground, said)
        process.terminate()
        assert await process.wait() == 0
    assert killed == KILLS
    assert len(set(sent)) >= 3, (
        sent,
        "kills between payouts, not only before or after all of them",
    )
    for number, who in enumerate(PAYEES):
        assert await ground.evm.balance(address(who)) == owed_wei(number), who
    await replayed(ground.folder)


def token_in(file: str) -> str:
    return Path(file).read_text().strip()


async def finished(ground: Ground, said: dict[str, str]) -> None:
    """Wait until nobody is owed anything, and nothing is on its way."""
    headers = {"Authorization": f"Bearer {token_in(said['operator_token_file'])}"}
    async with httpx.AsyncClient(base_url=said["web_url"], headers=headers) as operator:

        async def all_paid() -> bool:
            view = (await operator.get("/api/v1/payouts")).json()
            return (view["owed_wei"], view["in_flight_wei"]) == ("0", "0")

        await until(all_paid, ground)
