"""Why a chain cannot be read at the moment. Whoever polls one tells, and tries again.

Settings that are wrong are among them: they must be seen, but workers are served all the same.
"""

import structlog

from openpool.chain.interface import Reverted, WrongChain
from openpool.core.errors import BadMessage, SetupError, Unavailable

CHAIN_FAULTS = (Unavailable, Reverted, WrongChain, BadMessage, SetupError)

log = structlog.get_logger()


class Trouble:
    """What keeps somebody who polls; it is logged when it begins or changes, not at every look."""

    def __init__(self, event: str) -> None:
        self.text = ""
        """Empty while there is none."""
        self._event = event

    def tell(self, error: Exception) -> None:
        """This is the trouble now."""
        if str(error) != self.text:
            self.text = str(error)
            log.warning(self._event, problem=self.text)

    def over(self) -> None:
        """There is none any more."""
        if self.text:
            self.text = ""
            log.info(f"{self._event}-over")
