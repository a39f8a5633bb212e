"""Why a chain cannot be read at the moment. Whoever polls one tells, and tries again.

Settings that are wrong are among them: they must be seen, but workers are served all the same.
"""

from openpool.chain.interface import Reverted, WrongChain
from openpool.core.errors import BadMessage, SetupError, Unavailable

CHAIN_FAULTS = (Unavailable, Reverted, WrongChain, BadMessage, SetupError)
