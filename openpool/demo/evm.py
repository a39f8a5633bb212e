"""A small Livepeer on a local chain: our own contracts, actors with keys, rounds, tickets.

For the demo and the tests. Actors are named; their keys follow from the name, so the same name is
the same address in every run. Nothing here guards anything of value.
"""

import asyncio
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from math import isqrt
from pathlib import Path
from typing import Any

import aiohttp
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from openpool.chain import contracts as c
from openpool.chain.abi import Method, encode
from openpool.chain.answers import refusal
from openpool.chain.interface import Call, Reverted
from openpool.chain.rpc import Endpoint, RpcError, data, fields, number
from openpool.core.livepeer.tickets import Ticket, recipient_rand_hash, ticket_hash, wins
from openpool.core.units import ETHER, GWEI
from openpool.ethereum import Account, LocalAccount, encode_defunct
from openpool.private_files import write_private

CHAIN_ID = 31_337
FUNDS_WEI = 1_000 * ETHER
ROUND_BLOCKS = 40
FIRST_ROUND = 4_000
UNBONDING_ROUNDS = 7
SUPPLY_LPT = 30_000_000 * ETHER
ALWAYS = 2**256 - 1
"""The probability of a ticket that wins whatever is drawn (but once in 2^256)."""
MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
NO_ONE = "0x" + "0" * 40
LPT_PER_ETH = 500 * ETHER
DEPTH_WEI = 100 * ETHER
TICK = -62_149
"""Of a pool whose token0 is LPT at 1/500 ETH; the other way round it is positive."""
USD_PER_ETH = 2_500 * 10**8
DEPLOYER = "deployer"
SETTLE_S = 10.0
FEES = {"maxFeePerGas": hex(100 * GWEI), "maxPriorityFeePerGas": "0x0"}


@cache
def artifact(name: str) -> dict[str, Any]:
    """The ABI and the bytecode of one of our contracts."""
    text = files("openpool.demo").joinpath("contracts/contracts.json").read_text()
    found: dict[str, Any] = json.loads(text)[name]
    return found


@cache
def account(name: str) -> LocalAccount:
    """The actor of that name."""
    made: LocalAccount = Account.from_key(keccak(text=f"Open Pool demo: {name}"))
    return made


def address(name: str) -> str:
    """Its address, with checksum."""
    return str(account(name).address)


class Evm:
    """A chain of ours, with the handles that only a local one has."""

    def __init__(self, url: str, session: aiohttp.ClientSession, chain_id: int = CHAIN_ID) -> None:
        self.url = url
        self.chain_id = chain_id
        self.endpoint = Endpoint(url, chain_id=chain_id, session=session, timeout_s=30)
        self._automines = True

    async def rpc(self, method: str, *parameters: object) -> Any:
        """Any JSON-RPC request. Raises RpcError."""
        return await self.endpoint.request(method, *parameters)

    async def block_number(self) -> int:
        return number(await self.rpc("eth_blockNumber"))

    async def mine(self, blocks: int = 1, *, seconds: int = 1) -> None:
        """More blocks, each so many seconds after the last."""
        await self.rpc("anvil_mine", hex(blocks), hex(seconds))

    async def finalize(self) -> None:
        """Make all that is mined final."""
        await self.mine(3)

    async def reorg(self, depth: int) -> None:
        """Replace the newest blocks by empty ones; their transactions vanish."""
        await self.rpc("anvil_reorg", depth, [])

    async def drop(self, tx: str) -> None:
        """Forget a transaction that waits to be mined."""
        await self.rpc("anvil_dropTransaction", tx)

    async def automine(self, on: bool) -> None:
        """Whether each transaction is mined at once (or rather a moment later, see `settled`)."""
        await self.rpc("evm_setAutomine", on)
        self._automines = on

    async def settled(self) -> None:
        """Wait until all that was sent is mined; automine must be on."""
        async with asyncio.timeout(SETTLE_S):
            while number(fields(await self.rpc("txpool_status"))["pending"]):  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def set_balance(self, who: str, amount_wei: int) -> None:
        await self.rpc("anvil_setBalance", who, hex(amount_wei))

    async def balance(self, who: str) -> int:
        return number(await self.rpc("eth_getBalance", who, "latest"))

    async def base_fee(self, wei: int) -> None:
        """The base fee of the next block."""
        await self.rpc("anvil_setNextBlockBaseFeePerGas", hex(wei))

    async def pass_time(self, seconds: int) -> None:
        """The next block is so much later."""
        await self.rpc("evm_increaseTime", hex(seconds))
        await self.mine()

    async def snapshot(self) -> str:
        return str(await self.rpc("evm_snapshot"))

    async def revert(self, snapshot: str) -> None:
        await self.rpc("evm_revert", snapshot)

    async def actor(self, name: str, amount_wei: int = FUNDS_WEI) -> LocalAccount:
        """The actor of that name, with money."""
        await self.set_balance(address(name), amount_wei)
        return account(name)

    async def send(self, sender: str, call: Call) -> dict[str, Any]:
        """A transaction of anybody, mined: its receipt. Raises Reverted."""
        tx = {
            "from": sender,
            "to": call.to,
            "data": f"0x{call.data.hex()}",
            "value": hex(call.value_wei),
        }
        try:
            await self.rpc("eth_call", tx, "pending")  # says why; a receipt does not
            return await self._mined(tx)
        except RpcError as error:
            raise refusal(error) or error from None

    async def deploy(
        self, name: str, types: Sequence[str] = (), values: Sequence[object] = ()
    ) -> str:
        """One of our contracts; its address."""
        code = artifact(name)["bytecode"] + encode(list(types), *values).hex()
        receipt = await self._mined({"from": address(DEPLOYER), "data": code})
        return str(to_checksum_address(receipt["contractAddress"]))

    async def read(self, to: str, method: Method, *values: object) -> Any:
        """What a view with one result says."""
        call = {"to": to, "data": f"0x{method.encode(*values).hex()}"}
        return method.one(data(await self.rpc("eth_call", call, "latest")))

    async def _mined(self, tx: dict[str, str]) -> dict[str, Any]:
        if self._automines:
            receipt = await self.rpc("eth_sendTransactionSync", tx | FEES)
        else:
            sent = await self.rpc("eth_sendTransaction", tx | FEES)
            await self.mine()
            receipt = await self.rpc("eth_getTransactionReceipt", sent)
        found = fields(receipt)
        if number(found["status"]) != 1:
            raise Reverted(f"the transaction {found['transactionHash']} failed")
        return found


class Livepeer:
    """Our contracts on such a chain. `addresses` by the Controller's names, and of what else
    there is: Controller, SwapFactory, SwapPool, SwapQuoter, SwapRouter, WrappedEther, PriceFeed."""

    def __init__(self, evm: Evm, addresses: dict[str, str]) -> None:
        self.evm = evm
        self.addresses = addresses
        self._nonces: dict[str, int] = {}

    @classmethod
    async def deploy(cls, evm: Evm, *, round_blocks: int = ROUND_BLOCKS) -> "Livepeer":
        """All of them, in round `FIRST_ROUND + 1`."""
        await evm.actor(DEPLOYER)
        controller = await evm.deploy("Controller")
        at = {"Controller": controller, "LivepeerToken": await evm.deploy("LivepeerToken")}
        kinds = ["address", "uint256", "uint256", "uint256", "uint256"]
        at["Minter"] = await evm.deploy(
            "Minter", kinds, [controller, 250_000, 500, 500_000_000, SUPPLY_LPT // 100]
        )
        at["RoundsManager"] = await evm.deploy(
            "RoundsManager", kinds[:3], [controller, round_blocks, FIRST_ROUND]
        )
        at["BondingManager"] = await evm.deploy(
            "BondingManager", ["address", "uint64", "uint256"], [controller, UNBONDING_ROUNDS, 100]
        )
        at["TicketBroker"] = await evm.deploy("TicketBroker", ["address"], [controller])
        at["Treasury"] = await evm.deploy("AcceptsEther")
        protocol = cls(evm, at)
        for name in [name for name in at if name != "Controller"]:
            await protocol.set_contract(name, at[name])
        await protocol.set_contract("BondingManagerTarget", at["BondingManager"])
        await protocol.set_contract("TicketBrokerTarget", at["TicketBroker"])
        await protocol._prepare_money()
        await protocol._deploy_market()
        await protocol.next_round()
        return protocol

    async def set_contract(self, name: str, where: str) -> None:
        """Register an address with the Controller, as governance would."""
        method = Method("setContractInfo", "bytes32", "address", "bytes20")
        await self.call(DEPLOYER, "Controller", method, keccak(text=name), where, b"\0" * 20)

    async def call(
        self, actor: str, contract: str, method: Method, *values: object, value_wei: int = 0
    ) -> dict[str, Any]:
        """A transaction of a named actor to a contract. Raises Reverted."""
        call = Call(to=self.addresses[contract], data=method.encode(*values), value_wei=value_wei)
        return await self.evm.send(address(actor), call)

    async def read(self, contract: str, method: Method, *values: object) -> Any:
        return await self.evm.read(self.addresses[contract], method, *values)

    # ---- rounds and stake ---------------------------------------------------------------------

    async def round(self) -> int:
        return int(await self.read("RoundsManager", c.RoundsManager.current_round))

    async def next_round(self, count: int = 1) -> int:
        """Go to the start of a later round and initialize each on the way; its number."""
        for _ in range(count):
            start = await self.read("RoundsManager", c.RoundsManager.current_round_start_block)
            length = await self.read("RoundsManager", c.RoundsManager.round_length)
            await self.evm.mine(start + length - await self.evm.block_number())
            await self.call(DEPLOYER, "RoundsManager", c.RoundsManager.initialize_round)
        return await self.round()

    async def give_lpt(self, who: str, amount_lpt: int) -> None:
        await self.call(DEPLOYER, "LivepeerToken", c.Token.mint, who, amount_lpt)

    async def bond(self, actor: str, amount_lpt: int, to: str) -> None:
        """Stake of an actor, who gets ETH and LPT for it, with the orchestrator at an address."""
        await self.evm.actor(actor)
        await self.give_lpt(address(actor), amount_lpt)
        manager = self.addresses["BondingManager"]
        await self.call(actor, "LivepeerToken", c.Token.approve, manager, amount_lpt)
        await self.call(actor, "BondingManager", c.BondingManager.bond, amount_lpt, to)

    async def add_orchestrator(
        self,
        actor: str,
        *,
        stake_lpt: int = 10_000 * ETHER,
        reward_cut_ppm: int = 100_000,
        fee_share_ppm: int = 0,
    ) -> str:
        """Its address. It is active from the next round on."""
        await self.bond(actor, stake_lpt, address(actor))
        cuts = (reward_cut_ppm, fee_share_ppm)
        await self.call(actor, "BondingManager", c.BondingManager.transcoder, *cuts)
        return address(actor)

    async def reward(self, actor: str) -> None:
        await self.call(actor, "BondingManager", c.BondingManager.reward)

    # ---- tickets ------------------------------------------------------------------------------

    async def fund_gateway(
        self, actor: str, *, deposit_wei: int = 10 * ETHER, reserve_wei: int = ETHER
    ) -> str:
        """A gateway with money at the TicketBroker; its address."""
        await self.evm.actor(actor)
        amounts = (deposit_wei, reserve_wei)
        await self.call(
            actor, "TicketBroker", c.TicketBroker.fund, *amounts, value_wei=sum(amounts)
        )
        return address(actor)

    async def ticket(
        self,
        gateway: str,
        recipient: str,
        face_value_wei: int,
        *,
        win_prob: int = ALWAYS,
        rand: int = 7,
    ) -> tuple[Ticket, bytes]:
        """A ticket of a named gateway for an orchestrator's address, and its signature."""
        nonce = self._nonces[gateway] = self._nonces.get(gateway, 0) + 1
        now = await self.round()
        block = await self.read("RoundsManager", c.RoundsManager.block_hash_for_round, now)
        made = Ticket(
            recipient=bytes.fromhex(recipient[2:]),
            sender=bytes.fromhex(address(gateway)[2:]),
            face_value_wei=face_value_wei,
            win_prob=win_prob,
            sender_nonce=nonce,
            recipient_rand_hash=recipient_rand_hash(rand),
            aux_data=now.to_bytes(32, "big") + block,
        )
        return made, sign_ticket(account(gateway), made)

    async def redeem(self, actor: str, ticket: Ticket, signature: bytes, rand: int = 7) -> str:
        """Redeem a ticket; the hash of the transaction. Raises Reverted."""
        fields_ = (
            ticket.recipient,
            ticket.sender,
            ticket.face_value_wei,
            ticket.win_prob,
            ticket.sender_nonce,
            ticket.recipient_rand_hash,
            ticket.aux_data,
        )
        method = c.TicketBroker.redeem
        receipt = await self.call(actor, "TicketBroker", method, fields_, signature, rand)
        return str(receipt["transactionHash"])

    async def win(self, gateway: str, orchestrator: str, face_value_wei: int) -> str:
        """A winning ticket between two actors, made and redeemed at once; the transaction."""
        made, signature = await self.ticket(gateway, address(orchestrator), face_value_wei)
        assert wins(made, signature, 7)
        return await self.redeem(orchestrator, made, signature)

    # ---- money and market ---------------------------------------------------------------------

    async def _prepare_money(self) -> None:
        set_minter = Method("setMinter", "address")
        await self.call(DEPLOYER, "LivepeerToken", set_minter, self.addresses["Minter"])
        await self.give_lpt(address("whale"), SUPPLY_LPT)
        code = await self.evm.rpc("eth_getCode", await self.evm.deploy("Multicall3"), "latest")
        await self.evm.rpc("anvil_setCode", MULTICALL3, code)

    async def _deploy_market(self) -> None:
        at, deploy = self.addresses, self.evm.deploy
        at["WrappedEther"] = await deploy("WrappedEther")
        two = ["address", "address"]
        at["SwapPool"] = await deploy("SwapPool", two, [at["LivepeerToken"], at["WrappedEther"]])
        at["SwapFactory"] = await deploy("SwapFactory")
        await self.call(DEPLOYER, "SwapFactory", Method("setPool", "address"), at["SwapPool"])
        at["SwapQuoter"] = await deploy("SwapQuoter", ["address"], [at["SwapFactory"]])
        at["SwapRouter"] = await deploy("SwapRouter", two, [at["SwapFactory"], at["WrappedEther"]])
        at["PriceFeed"] = await deploy("PriceFeed", ["int256"], [USD_PER_ETH])
        await self.give_lpt(at["SwapPool"], SUPPLY_LPT // 100)
        await self.set_lpt_price()

    async def set_lpt_price(
        self,
        lpt_per_eth: int = LPT_PER_ETH,
        *,
        depth_wei: int = DEPTH_WEI,
        average_tick: int = TICK,
        tick: int = TICK,
    ) -> None:
        """What the market quotes, and its ticks as for LPT as token0."""
        at = self.addresses
        sign = 1 if int(at["LivepeerToken"], 16) < int(at["WrappedEther"], 16) else -1
        ratio = (ETHER, lpt_per_eth) if sign > 0 else (lpt_per_eth, ETHER)
        root = isqrt(2**192 * ratio[0] // ratio[1])
        method = Method("setPrice", "uint256", "uint256", "uint160", "int24", "int24")
        values = (lpt_per_eth, depth_wei, root, sign * tick, sign * average_tick)
        await self.call(DEPLOYER, "SwapPool", method, *values)

    async def set_usd_price(self, usd_per_eth: int, updated_s: int) -> None:
        """What the price feed says, in 1/10^8 USD, and since when."""
        method = Method("set", "int256", "uint256")
        await self.call(DEPLOYER, "PriceFeed", method, usd_per_eth, updated_s)


def sign_ticket(signer: LocalAccount, ticket: Ticket) -> bytes:
    """A gateway's signature of a ticket, 65 bytes."""
    return bytes(signer.sign_message(encode_defunct(ticket_hash(ticket))).signature)


def keystore_of(name: str, path: Path, passphrase: str) -> Path:
    """The key of an actor as a keystore file, quick to open and of no strength."""
    made = Account.encrypt(account(name).key, passphrase, kdf="scrypt", iterations=4096)
    write_private(path, json.dumps(made).encode())
    return path
