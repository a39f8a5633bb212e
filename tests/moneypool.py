"""A whole pool that follows our Livepeer on a real local EVM, with owners whose wallets we hold.

    from evm import *  # noqa: F403
    from moneypool import *  # noqa: F403 - the fixture `ground`

Pool, store, chain and transcoding are the real ones. Only waiting is shorter than in the settings'
defaults, and the pool's clock can be set forward.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from network import RunningPool, pool, worker, write_config

from openpool.core.model import Profile, Segment
from openpool.core.units import ETHER
from openpool.demo.evm import CHAIN_ID, Evm, Livepeer, account, address, keystore_of
from openpool.demo.media import make_segments
from openpool.demo.orchestrator import StandIn
from openpool.ethereum import encode_defunct
from openpool.private_files import write_private
from openpool.store.interface import EventFilter
from openpool.wire.results import RenditionData
from openpool.worker.engine import transcode
from openpool.worker.terms import EngineSettings

__all__ = ["ground"]

ORCHESTRATOR, HOT_WALLET = "orchestrator", "hot wallet"
WALLET = address(HOT_WALLET)
PROFILES = (Profile(name="tiny", width=160, height=90, bitrate_bps=100_000),)
FLOAT_WEI = ETHER
ROUND_BLOCKS = 300
"""So long that none ends by itself while something is waited for."""
LIMIT_S = 30.0


async def honest(source: bytes, segment: Segment) -> list[RenditionData]:
    """Really transcode."""
    made = await asyncio.to_thread(transcode, source, segment, EngineSettings())
    return [
        RenditionData(data=each.data, pixels=each.pixels, container=each.container)
        for each in made.renditions
    ]


async def openpool(
    *arguments: str, folder: Path, code: int | None = 0, timeout_s: float = 60
) -> tuple[str, str]:
    """Run a command in a folder to its end: its standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "openpool", *arguments),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert code in (None, process.returncode), (process.returncode, out.decode(), err.decode())
    return out.decode(), err.decode()


@dataclass
class Ground:
    """The chain with an active orchestrator and a gateway, and what a pool on it is told."""

    protocol: Livepeer
    folder: Path

    @property
    def evm(self) -> Evm:
        return self.protocol.evm

    def chain(self, url: str = "", controller: str = "") -> str:
        """The section `chain`."""
        return f"""
chain:
  endpoints: [{{url: "{url or self.evm.url}"}}]
  id: {CHAIN_ID}
  controller: "{controller or self.protocol.addresses["Controller"]}"
  price_feed: none
  poll_ms: 100
  priority_fee_max: 0 wei
"""

    def payouts(self, more: str = "") -> str:
        """The section `payouts`, with a hot wallet."""
        passphrase = self.folder / "wallet.passphrase"
        write_private(passphrase, b"secret words\n")
        keystore = keystore_of(HOT_WALLET, self.folder / "wallet.json", "secret words")
        return f"""
payouts:
  mode: "on"
  keystore: "{keystore}"
  passphrase: "{passphrase}"
  every_ms: 1000
  threshold: 0.0001 ETH
  minimum: 0.0001 ETH
  {more}
"""


@pytest.fixture
async def ground(evm: Evm, tmp_path: Path) -> Ground:
    """An orchestrator that keeps its fees and half of its reward, and a hot wallet with 1 ETH."""
    protocol = await Livepeer.deploy(evm, round_blocks=ROUND_BLOCKS)
    await protocol.add_orchestrator(ORCHESTRATOR, reward_cut_ppm=500_000)
    await protocol.fund_gateway("gateway")
    await protocol.evm.set_balance(WALLET, FLOAT_WEI)
    await protocol.next_round()
    return Ground(protocol, tmp_path)


@dataclass
class MoneyPool:
    """A running pool on that ground."""

    ground: Ground
    running: RunningPool
    orchestrator: StandIn
    operator: httpx.AsyncClient
    folder: Path
    secrets: dict[str, str] = field(default_factory=dict)
    """Tokens by name of owner; an owner has one worker, of the same name."""

    # --- owners --------------------------------------------------------------------------------

    async def enrol(self, *owners: str, group: str = "") -> None:
        """Enrol a worker of each owner, with the owner's wallet; again for one more token."""
        enrolment = self.running.process.enrolment
        for name in owners:
            invite = ""
            if group:
                made = await self.ask("POST", "/invites", json={"group": group})
                invite = str(made["invite"])
            message, signature = await self._signed(name)
            enrolled = await enrolment.enroll(
                message=message,
                signature=signature,
                name=name.replace(" ", "-"),
                terms=enrolment.terms().digest,
                invite=invite,
            )
            self.secrets[name] = enrolled.secret

    async def _signed(self, owner: str) -> tuple[str, str]:
        answer = await self.operator.post(
            "/api/v1/enroll/nonce", json={"address": address(owner)}, headers={"Authorization": ""}
        )
        message = str(answer.raise_for_status().json()["message"])
        signature = account(owner).sign_message(encode_defunct(text=message)).signature
        return message, "0x" + bytes(signature).hex()

    @asynccontextmanager
    async def signed_in(self, owner: str) -> AsyncIterator[httpx.AsyncClient]:
        """A browser in which an owner's wallet has signed in."""
        message, signature = await self._signed(owner)
        async with httpx.AsyncClient(base_url=self.operator.base_url) as browser:
            said = await browser.post(
                "/api/v1/session", json={"message": message, "signature": signature}
            )
            assert said.raise_for_status().json()["address"] == address(owner)
            yield browser

    async def work(self, owner: str, segments: int = 1, stream: str = "") -> None:
        """Segments transcoded by an owner's worker, delivered and credited."""
        async with worker(self.running, self.secrets[owner], honest):
            await self.orchestrator.wait_registered(1)
            for seq, data in enumerate(make_segments(160, 90, 30, 1, segments)):
                outcome = await self.orchestrator.submit(
                    stream or f"{owner}-{len(self.events('job-delivered'))}",
                    seq,
                    data,
                    1000,
                    PROFILES,
                )
                assert outcome.ok, outcome.error
            await self.running.settled()
        await self.orchestrator.wait_registered(0)

    # --- the operator --------------------------------------------------------------------------

    async def ask(self, method: str, path: str, **content: Any) -> Any:
        """A request to the API by the operator."""
        answer = await self.operator.request(method, f"/api/v1{path}", **content)
        assert answer.is_success, (answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def events(self, *kinds: str) -> list[Any]:
        stored = self.running.store.events(EventFilter(types=kinds, limit=5_000))
        return [each.event.data for each in stored]

    def balances(self) -> dict[str, int]:
        return {b.account: b.amount_wei for b in self.running.store.balances() if b.amount_wei}

    async def until(self, holds: Callable[[], Awaitable[bool] | bool], what: str) -> None:
        """Wait until it holds, while the chain goes on; looked at again and again."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while True:
                    found = holds()
                    if found if isinstance(found, bool) else await found:
                        return
                    await self.ground.evm.mine()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            view = await self.operator.get("/api/v1/payouts")
            raise AssertionError(f"waited in vain for {what}: {view.text}") from None

    async def followed(self) -> None:
        """Wait until the pool has begun to follow its orchestrator."""
        await self.until(lambda: bool(self.events("claim-opened")), "the chain to be followed")

    async def end_round(self) -> int:
        """Let the protocol's round end, and wait for its statement; the round's number."""
        number = await self.ground.protocol.round()
        await self.ground.protocol.next_round()
        await self.until(
            lambda: number in {each.round for each in self.events("statement-made")},
            f"the statement of round {number}",
        )
        return number

    async def paid(self) -> None:
        """Wait until nobody who is due waits, and nothing is on its way."""

        async def nothing_open() -> bool:
            view = await self.ask("GET", "/payouts")
            return (view["owed_wei"], view["in_flight_wei"]) == ("0", "0")

        await self.until(nothing_open, "everybody to be paid")

    async def verified(self, round: int) -> dict[str, Any]:
        """What `openpool verify` says of a round in a folder with nothing else: it is right."""
        folder = self.folder / f"verify-{round}"
        folder.mkdir(exist_ok=True)
        made = (await self.operator.get(f"/statements/{round}.json")).raise_for_status()
        receipts = await self.operator.get("/api/v1/receipts", params={"round": round})
        (folder / "statement.json").write_bytes(made.content)
        (folder / "receipts.jsonl").write_bytes(receipts.raise_for_status().content)
        before = folder.parent / f"verify-{round - 1}" / "statement.json"
        known = await self.operator.get("/.well-known/openpool.json")
        out, _ = await openpool(
            *("verify", "statement.json", "--receipts", "receipts.jsonl"),
            *("--signer", str(known.json()["signer"]), "--rpc", self.ground.evm.url, "--json"),
            *(("--previous", str(before)) if before.exists() else ()),
            folder=folder,
        )
        said: dict[str, Any] = json.loads(out)
        assert said["ok"], said["findings"]
        return said

    def promise(self) -> Any:
        """The terms in force."""
        return self.running.process.terms.in_force().terms


@asynccontextmanager
async def money_pool(
    ground: Ground, orchestrator: StandIn, extra: str, folder: Path | None = None
) -> AsyncIterator[MoneyPool]:
    """A pool with these settings over its data folder, which is kept when it ends."""
    folder = folder or ground.folder
    config = write_config(folder, [orchestrator], extra)
    known = f'    eth_address: "{address(ORCHESTRATOR)}"\n    secret:'
    config.write_text(config.read_text().replace("    secret:", known, 1))
    async with pool(config) as running:
        token = running.running.operator_token_file.read_text().strip()
        async with httpx.AsyncClient(
            base_url=running.running.web_url, headers={"Authorization": f"Bearer {token}"}
        ) as operator:
            yield MoneyPool(ground, running, orchestrator, operator, folder)


async def replayed(folder: Path) -> None:
    """`openpool replay --check` says that log and books agree."""
    await openpool("replay", "--check", "-c", str(folder / "openpool.yaml"), folder=folder)
