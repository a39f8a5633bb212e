"""Small parts of the host: graphics memory on paper, bodies, frames, addresses of calls."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtimes import chunks

from openpool.core.calls import App
from openpool.core.errors import BadMessage
from openpool.worker.runtimes.asking import read_json
from openpool.worker.runtimes.base import BadRequest
from openpool.worker.runtimes.budget import VramBudget
from openpool.worker.runtimes.frames import HEADER, Frame, Kind, Unpacker, pack
from openpool.worker.runtimes.host import call_path, parse_call
from openpool.worker.runtimes.spool import MEMORY_BYTES_MAX, Spool, TooLarge


class Model:
    """Something in graphics memory."""

    def __init__(self, vram_mb: int, used_at: float = 0, *, is_idle: bool = True) -> None:
        self.vram_mb = vram_mb
        self.used_at = used_at
        self.is_idle = is_idle
        self.has_left = False

    def leave(self) -> None:
        self.has_left = True


def test_without_a_limit_everybody_fits() -> None:
    """A worker that says nothing about its memory loads everything."""
    budget = VramBudget(None)
    assert all(budget.admit(Model(10**6)) for _ in range(3))


def test_models_fit_until_memory_is_full() -> None:
    """What does not fit stays outside, unless others may be sent away."""
    budget = VramBudget(10)
    assert budget.admit(Model(6))
    assert not budget.admit(Model(6))
    assert budget.admit(Model(4))
    assert budget.used_mb == 10
    assert budget.admit(Model(0))


def test_the_one_unused_for_longest_goes() -> None:
    """Room is made by idle models only, and by no more of them than needed."""
    budget = VramBudget(10)
    old, busy, young = Model(4, 1), Model(3, 0, is_idle=False), Model(3, 2)
    assert all(budget.admit(model) for model in (old, busy, young))
    assert budget.admit(Model(4), evict=True)
    assert [old.has_left, busy.has_left, young.has_left] == [True, False, False]


def test_nobody_goes_if_that_does_not_help() -> None:
    """A model that cannot fit anyway costs the others nothing."""
    budget = VramBudget(10)
    old, busy = Model(4), Model(6, is_idle=False)
    assert budget.admit(old)
    assert budget.admit(busy)
    assert not budget.admit(Model(9), evict=True)
    assert not old.has_left


@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.booleans()), max_size=30),
)
def test_memory_is_never_promised_twice(models: list[tuple[int, bool, bool]]) -> None:
    """Whatever comes, what is in never takes more than there is."""
    budget = VramBudget(12)
    for when, (vram_mb, is_idle, evict) in enumerate(models):
        budget.admit(Model(vram_mb, when, is_idle=is_idle), evict=evict)
        assert budget.used_mb <= 12


async def test_a_small_body_stays_in_memory(tmp_path: Path) -> None:
    """No file is written for what fits."""
    async with Spool(tmp_path, 10**8) as spool:
        await spool.take(chunks(b"x" * 1000))
        assert (spool.data, spool.file) == (b"x" * 1000, None)


async def test_a_large_body_is_in_a_file_for_as_long_as_its_call(tmp_path: Path) -> None:
    """It is not in memory, and leaves nothing behind."""
    body = bytes(range(256)) * (MEMORY_BYTES_MAX // 100)
    async with Spool(tmp_path, 10**8) as spool:
        await spool.take(chunks(body))
        assert spool.data == b""
        assert spool.file is not None
        assert spool.file.read_bytes() == body
    assert os.listdir(tmp_path) == []


async def test_a_body_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    """Also if the client vanishes in the middle."""

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(3 * MEMORY_BYTES_MAX)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        async with Spool(tmp_path, 10**8) as spool:
            await spool.take(broken())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("announced", ["", "101", "9" * 30])
async def test_a_body_above_the_limit_is_refused(tmp_path: Path, announced: str) -> None:
    """As soon as it is known."""
    async with Spool(tmp_path, 100) as spool:
        with pytest.raises(TooLarge):
            await spool.take(chunks(b"x" * 101), announced)
        with pytest.raises(BadMessage, match="not a number"):
            await spool.take(chunks(b"x"), "\u00b2")


@given(
    st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary())),
    st.integers(1, 50),
)
def test_frames_survive_any_cutting(frames: list[tuple[Kind, int, bytes]], step: int) -> None:
    """What is packed comes out the same, however the bytes arrive."""
    sent = b"".join(pack(*frame) for frame in frames)
    unpacker = Unpacker()
    received = [
        frame for i in range(0, len(sent), step) for frame in unpacker.feed(sent[i : i + step])
    ]
    assert received == [Frame(*frame) for frame in frames]


def test_what_is_no_frame_is_an_error() -> None:
    """A process that has gone mad is noticed, and makes us keep nothing."""
    for nonsense in (HEADER.pack(Kind.DATA, 1, 2**32 - 1), HEADER.pack(99, 1, 0)):
        with pytest.raises(ValueError):
            list(Unpacker().feed(nonsense))


def test_addresses_of_calls() -> None:
    """Model names may hold slashes, spaces and percent signs."""
    app = App("llm", "meta/llama 3 100%?")
    assert parse_call(call_path(app, "/v1/chat?a=1&b=x%20y")) == (
        app,
        "/v1/chat",
        {"a": "1", "b": "x y"},
    )
    for wrong in ("/", "/call/llm", "/call/llm/model", "/other/llm/model/x"):
        with pytest.raises(BadMessage):
            parse_call(wrong)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[1]",
        b"\xff",
        b'{"a":"\xff"}',
        b'{"\xff":1}',
        b'{"a":' * 50_000,
        b'{"a":1e999}',
        b"NaN",
    ],
)
def test_whatever_is_no_json_is_the_clients_mistake(body: bytes) -> None:
    """Also letters that are none, and depths that no parser follows."""
    with pytest.raises(BadRequest, match="the body is not a wish in JSON: "):
        read_json(body, dict[str, object], "a wish")
