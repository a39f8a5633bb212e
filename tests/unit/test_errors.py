"""Sentences about what the system or an HTTP client refused."""

import errno

import aiohttp
import pytest

from openpool.core.errors import cannot_listen, reason_of
from openpool.demo.children import free_port


async def test_an_http_clients_error_is_told_in_the_systems_words() -> None:
    """Nothing of the client's insides is shown to a person."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError) as refused:
            await session.get(f"https://127.0.0.1:{free_port()}/")
    assert reason_of(refused.value) == "connection refused"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (ConnectionResetError(), "the connection was closed"),
        (TimeoutError(), "no answer in time"),
        (ValueError("no price in it"), "no price in it"),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
    ],
)
def test_every_error_has_words(error: Exception, words: str) -> None:
    """Also one that brings none."""
    assert reason_of(error) == words


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EADDRINUSE, "that port is in use: choose another, or stop the program that uses it"),
        (errno.EADDRNOTAVAIL, "this machine has no such address; 0.0.0.0 stands for all it has"),
        (errno.EACCES, "that port is not for everybody: choose one from 1024 on"),
        (errno.ENETDOWN, "network is down: choose another address"),
    ],
)
def test_a_place_that_cannot_be_had_is_named_with_what_to_do(number: int, advice: str) -> None:
    """The setting, the place, the reason and the way out are one sentence."""
    said = cannot_listen("web.listen", "10.0.0.9", 80, OSError(number, "Network is down"))
    assert str(said) == f"web.listen: cannot listen on 10.0.0.9:80; {advice}."
