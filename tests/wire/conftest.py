"""A certificate for all link tests, and a port with the usual limits."""

from collections.abc import AsyncIterator

import pytest

from openpool.link.server import WorkerPort
from openpool.link.tls import Identity, load_or_create_identity, server_context
from tests.wire.kit import Desk


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return load_or_create_identity(tmp_path_factory.mktemp("identity"), ["127.0.0.1"])


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def port(identity: Identity, desk: Desk) -> AsyncIterator[WorkerPort]:
    port = WorkerPort(desk, server_context(identity), host="127.0.0.1")
    async with port.running():
        yield port
