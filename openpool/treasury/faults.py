"""Why a chain cannot be read at the moment. Whoever polls one tells, and tries again."""

from openpool.chain.interface import Reverted, WrongChain
from openpool.core.errors import BadMessage, Unavailable

CHAIN_FAULTS = (Unavailable, Reverted, WrongChain, BadMessage)
