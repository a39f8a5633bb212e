"""The pool dies at every single step of paying, and pays everybody once all the same.

Real SQLite, a real EVM, a real payer. A first run without a crash counts the steps; then one run
for each of them ends there, and the next start has nothing but the log and the chain.
"""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from evm import Faulty
from modelchain import ModelSigner
from payers import MILLI, MINUTE_MS, Killed, Knife, Pool

from openpool.chain.client import EthereumChain, open_chain
from openpool.core.units import ETHER
from openpool.demo.evm import CHAIN_ID, DEPLOYER, Evm, address
from openpool.store.database import FILE
from openpool.store.interface import EventFilter
from openpool.store.reader import SqliteReader

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A process dies here, not the machine, so files need not reach a disk."""
FIRST, SECOND = address("first payee"), address("second payee")


@pytest.fixture
async def chain(faulty: Faulty) -> AsyncIterator[EthereumChain]:
    async with open_chain([faulty.url], chain_id=CHAIN_ID, agree=1, timeout_s=5) as found:
        yield found


async def story(pool: Pool, refuses: str) -> AsyncIterator[None]:
    """What the world does, whoever is alive: nothing is mined for a while, then something is, and
    a reorganisation undoes it."""
    evm = pool.evm
    await pool.owe(FIRST, 50 * MILLI)
    await pool.owe(SECOND, 70 * MILLI + 1)
    await pool.owe(refuses, 30 * MILLI)
    yield
    await pool.tick(6 * MINUTE_MS)
    yield
    await evm.mine()
    await pool.tick()
    yield
    await evm.reorg(1)
    await pool.tick(2 * MINUTE_MS)
    yield
    await evm.mine()
    await pool.tick(6 * MINUTE_MS)
    yield
    await evm.finalize()
    await pool.tick()
    yield


async def play(pool: Pool, refuses: str, mined_meanwhile: bool) -> None:
    """The story, going on after each crash."""
    await pool.open()
    told = story(pool, refuses)
    over = False
    while not over:
        try:
            over = await anext(told, True) is True
            await (pool.settle() if over else pool.tick())
        except Killed:
            if mined_meanwhile:
                await pool.evm.finalize()
            await pool.crash()
            over = False


async def check(pool: Pool, refuses: str) -> None:
    book = pool.payer.journal.book
    assert await pool.got(FIRST) == 50 * MILLI
    assert await pool.got(SECOND) == 70 * MILLI + 1
    assert await pool.got(refuses) == 0
    assert pool.balance(f"worker:{refuses}") == 30 * MILLI
    assert list(book.blocked) == [refuses]
    assert pool.balance(f"worker:{FIRST}") == pool.balance(f"worker:{SECOND}") == 0
    assert pool.balance("in-flight") == 0
    assert not book.open
    assert not book.paused
    spent = 10 * ETHER - await pool.evm.balance(pool.signer.address)
    assert pool.balance(f"wallet:{pool.signer.address}") == spent


SURVIVORS = 5
"""So many stories in a row ended before the step at which they were to die: no step is left. How
many there are differs a little, since a look more is needed while the chain makes a block."""


@pytest.mark.parametrize("mined_meanwhile", [False, True])
async def test_a_crash_at_every_step(evm: Evm, chain: EthereumChain, mined_meanwhile: bool) -> None:
    """Whichever step is the last one of a process, everybody gets exactly what is owed, the books
    equal the chain to the wei, and nobody has to help; whether or not what was sent is mined
    and final before the next start."""
    signer = ModelSigner()
    await evm.actor(DEPLOYER)
    refuses = await evm.deploy("RefusesEther")
    await evm.set_balance(signer.address, 10 * ETHER)
    await evm.automine(False)
    at = survived = 0
    while survived < SURVIVORS:
        at += 1
        before = await evm.snapshot()
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            pool = Pool(Path(folder), evm, chain, signer)
            pool.knife = knife = Knife(at)
            await play(pool, refuses, mined_meanwhile)
            await check(pool, refuses)
            pool.close()
        await evm.revert(before)
        survived = 0 if knife.dead else survived + 1
    assert at - survived > 75


async def test_peers_11_a_payment_is_on_disk_before_it_is_sent(
    evm: Evm, chain: EthereumChain, tmp_path: Path
) -> None:
    """An older pool sent first and wrote later, so a crash paid twice. Here another reader finds
    the bytes in the log at the moment in which they go out."""
    signer = ModelSigner()
    await evm.set_balance(signer.address, 10 * ETHER)
    pool = await Pool(tmp_path, evm, chain, signer).open()
    await pool.owe(FIRST, 50 * MILLI)
    on_disk: list[bool] = []
    send = chain.send

    async def watched(raw: bytes) -> str:
        which = EventFilter(types=("order-signed",))
        log = [each.event.data for each in SqliteReader(tmp_path / FILE).events(which)]
        on_disk.append(f"0x{raw.hex()}" in [getattr(data, "raw", "") for data in log])
        return await send(raw)

    chain.send = watched  # type: ignore[method-assign]
    await pool.settle()
    assert on_disk == [True]
    pool.close()


async def test_peers_16_a_crash_in_the_middle_of_sending_needs_nobody(
    evm: Evm, chain: EthereumChain, tmp_path: Path
) -> None:
    """An older pool left a payment that was being sent for a human to sort out. Here the next
    start finds it, and it is paid once."""
    signer = ModelSigner()
    await evm.set_balance(signer.address, 10 * ETHER)
    pool = await Pool(tmp_path, evm, chain, signer).open()
    await pool.owe(FIRST, 50 * MILLI)
    for word in ("before send", "after send"):
        pool.knife.kill_at(word)
        with pytest.raises(Killed):
            await pool.tick()
        await pool.crash()
    await pool.settle()
    assert await pool.got(FIRST) == 50 * MILLI
    assert len(pool.payer.journal.book.ended) == 1
    pool.close()
