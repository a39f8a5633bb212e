"""The chain of the demo: our own Livepeer on a local Ethereum, with an orchestrator and a gateway.

Tickets are drawn as the real ones are: each wins with its probability, so the demo has its luck.
Knows nothing of the pool; `demo.money` brings the two together.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from openpool.chain import contracts as c
from openpool.core.errors import SetupError
from openpool.core.livepeer.tickets import wins
from openpool.core.units import ETHER
from openpool.demo.anvil import anvil
from openpool.demo.evm import CHAIN_ID, Evm, Livepeer, account, address, keystore_of
from openpool.demo.rpc_door import RpcDoor, rpc_door
from openpool.private_files import write_private

ORCHESTRATOR, GATEWAY, HOT_WALLET = "orchestrator", "gateway", "hot wallet"
ROUND_BLOCKS = 1_000
"""So long that none ends by itself while the demo waits for blocks to be final."""
TICKETS = 40
"""Drawn for each round; every other one wins on average."""
EVERY_OTHER = 2**255
OTHERS_LPT = 14_000_000 * ETHER
"""All other stake of the network, as if it were one orchestrator."""
FLOAT_WEI = ETHER // 100
"""What the operator puts into the hot wallet: it carries gas and bad luck."""
KEEP_WEI = ETHER // 1000


class Ground:
    """What there is of a chain."""

    def __init__(self, evm: Evm, protocol: Livepeer, door: RpcDoor) -> None:
        self.evm = evm
        self.protocol = protocol
        self.door = door

    @property
    def wallet(self) -> str:
        """Address of the pool's hot wallet."""
        return address(HOT_WALLET)

    async def prepare(self) -> None:
        """An active orchestrator, a gateway with a deposit, a hot wallet with a float."""
        await self.protocol.add_orchestrator(ORCHESTRATOR, reward_cut_ppm=100_000)
        await self.protocol.bond("delegator", 2_500 * ETHER, address(ORCHESTRATOR))
        await self.protocol.add_orchestrator("others", stake_lpt=OTHERS_LPT)
        await self.protocol.fund_gateway(GATEWAY)
        await self.evm.set_balance(self.wallet, FLOAT_WEI)
        await self.protocol.next_round()

    async def draw(self, value_wei: int) -> tuple[int, int]:
        """Tickets that are worth so much on average, the winners redeemed; how many won, and what
        they brought."""
        face_value_wei = 2 * value_wei // TICKETS
        won = 0
        for _ in range(TICKETS):
            rand = secrets.randbits(128)
            ticket, signature = await self.protocol.ticket(
                GATEWAY, address(ORCHESTRATOR), face_value_wei, win_prob=EVERY_OTHER, rand=rand
            )
            if wins(ticket, signature, rand):
                await self.protocol.redeem(ORCHESTRATOR, ticket, signature, rand)
                won += 1
        return won, won * face_value_wei

    async def close_round(self) -> int:
        """Reward is called and the next round begins; the number of the one that ended."""
        number = await self.protocol.round()
        await self.protocol.reward(ORCHESTRATOR)
        await self.protocol.next_round()
        return number

    async def withdraw(self) -> int:
        """All fees of the orchestrator go to the hot wallet; how much that is."""
        who = address(ORCHESTRATOR)
        amount_wei = int(
            await self.protocol.read("BondingManager", c.BondingManager.pending_fees, who, 0)
        )
        await self.protocol.call(
            ORCHESTRATOR, "BondingManager", c.BondingManager.withdraw_fees, self.wallet, amount_wei
        )
        return amount_wei

    def settings(self, folder: Path) -> str:
        """The part of `openpool.yaml` about the chain and payouts."""
        passphrase = folder / "wallet.passphrase"
        write_private(passphrase, b"demo\n")
        keystore = keystore_of(HOT_WALLET, folder / "wallet.json", "demo")
        return f"""\
chain:
  endpoints:
    - url: {self.door.url}
  id: {CHAIN_ID}
  controller: "{self.protocol.addresses["Controller"]}"
  poll_ms: 200
  priority_fee_max: 0 wei
payouts:
  mode: "on"
  keystore: "{keystore}"
  passphrase: "{passphrase}"
  threshold: 1 gwei
  minimum: 1 gwei
  every_ms: 3600000
  keep: {KEEP_WEI} wei
"""

    @property
    def orchestrator(self) -> str:
        """Its address."""
        return str(account(ORCHESTRATOR).address)


@asynccontextmanager
async def open_ground() -> AsyncIterator[Ground | None]:
    """A fresh chain with all of it; None where there is no `anvil`."""
    try:
        running = anvil()
        url = running.__enter__()
    except SetupError:
        yield None
        return
    try:
        async with aiohttp.ClientSession() as session, rpc_door(url) as door:
            evm = Evm(url, session)
            ground = Ground(evm, await Livepeer.deploy(evm, round_blocks=ROUND_BLOCKS), door)
            await ground.prepare()
            yield ground
    finally:
        running.__exit__(None, None, None)
