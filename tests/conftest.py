"""What holds for every test."""

from collections.abc import Iterator

import pytest
import structlog
from evm import anvil_url, evm, faulty, make_faulty, other_anvil_url, protocol

__all__ = ["anvil_url", "evm", "faulty", "make_faulty", "other_anvil_url", "protocol"]
"""The local Ethereum of `tests/evm.py`: one for the whole run, whoever asks."""


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """Logging as a library has it: a test that sets it up leaves nothing behind."""
    yield
    structlog.reset_defaults()
