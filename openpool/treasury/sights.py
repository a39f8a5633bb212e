"""What the chain says about the orders of one wallet, asked in the order that makes it safe.

First the block that counts as final, then the nonces, and the receipts last: whatever used up a
nonce that was counted had its receipt by then. Must not decide anything; that is
`core.money.payouts`.
"""

from collections.abc import Sequence

from msgspec import Struct

from openpool.chain.interface import Chain, Disagreement, GasPrice, Receipt
from openpool.core.money.orders import Order
from openpool.core.money.payouts import Outcome
from openpool.treasury.asking import ask_all


class Look(Struct, frozen=True, kw_only=True):
    """One look at a wallet and its orders."""

    final_block: int
    final_nonce: int
    latest_nonce: int
    price: GasPrice
    receipts: dict[str, Receipt]
    """By order: what became of it, if it is in a block."""

    def outcome(self, order: Order) -> Outcome | None:
        """Which attempt of an order is in a block. One whose nonce is still used, in a block that
        is not final, is taken to be where it was seen: nothing could be done about it."""
        if receipt := self.receipts.get(order.order):
            return Outcome(
                tx=receipt.tx,
                block=receipt.block,
                block_hash=receipt.block_hash,
                ok=receipt.ok,
                fee_wei=receipt.fee_wei,
            )
        if self.need_not_ask(order):
            return Outcome(
                tx=order.tx, block=order.block, block_hash=order.block_hash, ok=True, fee_wei=0
            )
        return None

    def need_not_ask(self, order: Order) -> bool:
        return (
            order.state == "mined"
            and order.nonce is not None
            and order.nonce < self.latest_nonce
            and order.block > self.final_block
        )


async def look(chain: Chain, wallet: str, orders: Sequence[Order]) -> Look:
    """Ask about these orders. Raises ChainUnavailable."""
    final = await chain.block("finalized")
    final_nonce = await chain.nonce(wallet, at=final.number)
    seen = Look(
        final_block=final.number,
        final_nonce=final_nonce,
        latest_nonce=max(await chain.nonce(wallet), final_nonce),
        price=await chain.gas_price(),
        receipts={},
    )
    asked = [order for order in orders if order.attempts and not seen.need_not_ask(order)]
    found = await ask_all(lambda order: receipt_of(chain, order), asked)
    seen.receipts.update({order.order: r for order, r in zip(asked, found, strict=True) if r})
    await _check_canonical(chain, [r for r in found if r and r.block <= final.number])
    return seen


async def receipt_of(chain: Chain, order: Order) -> Receipt | None:
    """The receipt of whichever attempt is in a block; they share a nonce, so there is one at
    most."""
    found = [r for a in order.attempts if (r := await chain.receipt(a.tx)) is not None]
    if len(found) > 1:
        raise Disagreement(f"Two transactions with the nonce of order {order.order} were mined.")
    return found[0] if found else None


async def _check_canonical(chain: Chain, receipts: Sequence[Receipt]) -> None:
    """What is about to be final must be in the block that the chain has at that height."""
    by_block = sorted({(r.block, r.block_hash) for r in receipts})
    blocks = await ask_all(lambda each: chain.block(each[0]), by_block)
    for (number, block_hash), block in zip(by_block, blocks, strict=True):
        if block.hash != block_hash:
            raise Disagreement(f"A receipt names another block {number} than the chain has.")
