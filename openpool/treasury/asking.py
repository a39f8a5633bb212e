"""Many questions at a time, but not too many, and none left behind when one fails."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
AT_ONCE = 16


async def ask_all(ask: Callable[[Item], Awaitable[Answer]], items: Iterable[Item]) -> list[Answer]:
    """The answers in the order of the items. The first error ends the other questions."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(item: Item) -> Answer:
        async with turns:
            return await ask(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_turn(item)) for item in items]
    except BaseExceptionGroup as faults:
        raise faults.exceptions[0] from None
    return [task.result() for task in tasks]
