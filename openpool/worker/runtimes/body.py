"""A body that comes piece by piece from elsewhere, and that whoever reads it can end early.

Must not know where the pieces come from.
"""

from abc import abstractmethod
from collections.abc import AsyncGenerator
from types import TracebackType


class Body(AsyncGenerator[bytes, None]):
    """An async generator of bytes that is not a function: it can be closed before it has begun."""

    @abstractmethod
    async def aclose(self) -> None:
        """No more is wanted."""

    async def asend(self, value: None) -> bytes:
        return await self.__anext__()

    async def athrow(
        self,
        kind: type[BaseException] | BaseException,
        value: object = None,
        trace: TracebackType | None = None,
    ) -> bytes:
        await self.aclose()
        raise kind
