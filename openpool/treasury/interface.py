"""What shells of the treasury may ask of each other."""

from collections.abc import Sequence
from typing import Protocol

from openpool.core.money.events import Asset, OrderKind, OrderLine
from openpool.core.money.orders import Order


class Orders(Protocol):
    """Whoever carries orders out (`treasury.payer`)."""

    async def plan(
        self,
        *,
        order: str,
        kind: OrderKind,
        to: str,
        data: bytes = b"",
        value_wei: int = 0,
        asset: Asset = "ETH",
        lines: Sequence[OrderLine] = (),
        note: str = "",
    ) -> bool:
        """Write an order down; it is signed and sent as soon as can be, once.

        `order` is its name and is made from the fact, like `reward/main/3120`: the same name twice
        is one order, and the answer then is False. Raises Unavailable if the disk failed.
        """

    def order(self, order: str) -> Order | None:
        """How it stands, if it is open or ended lately."""
