"""`pytest tests/scenarios --rewrite` writes what the core does now into the scenarios."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="accept what the core does now")
