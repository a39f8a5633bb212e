"""What holds for every test."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """Logging as a library has it: a test that sets it up leaves nothing behind."""
    yield
    structlog.reset_defaults()
