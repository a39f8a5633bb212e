"""Downloads that break off, are begun twice or do not fit, from a real server on this machine."""

import asyncio
import hashlib
import random
import resource
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from openpool.core.errors import SetupError
from openpool.worker.runtimes.base import ModelMissing
from openpool.worker.runtimes.folders import model_folder
from openpool.worker.runtimes.models import Listing, ModelFile, at_address, fetch

DATA = random.Random(4).randbytes(5_000_000)
CUT = 1_234_567


class Server:
    """Gives one file, and breaks off as often as it is told to."""

    def __init__(self) -> None:
        self.data = DATA
        self.ranges = True
        self.status = 200
        self.shift = 0
        """By how much the ranges it gives are wrong."""
        self.cuts: deque[int] = deque()
        """After how many bytes each of the next answers breaks off."""
        self.asked: list[str] = []
        """The ranges asked for."""
        self.stalls = False
        self.stalling = asyncio.Event()
        self.go_on = asyncio.Event()
        self.url = ""

    async def give(self, request: web.Request) -> web.StreamResponse:
        span = request.headers.get("Range", "")
        self.asked.append(span)
        if self.status != 200:
            return web.Response(status=self.status, headers={"Location": "http://a..b/"})
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span and self.ranges else 0
        if start >= len(self.data):
            return web.Response(status=416)
        answer = web.StreamResponse(status=206 if start else 200)
        if start:
            start += self.shift
            end, size = len(self.data) - 1, len(self.data)
            answer.headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        answer.enable_compression()  # if the client would take it
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            answer.content_length = len(self.data) - start
        await answer.prepare(request)
        await self._send(request, answer, self.data[start:])
        return answer

    async def _send(self, request: web.Request, answer: web.StreamResponse, data: bytes) -> None:
        cut = self.cuts.popleft() if self.cuts else len(data)
        await answer.write(data[:cut])
        if self.stalls:
            self.stalling.set()
            await self.go_on.wait()
        if cut < len(data) and request.transport:
            request.transport.close()
        with suppress(ConnectionError):
            await answer.write(data[cut:])


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_get("/model.bin", server.give)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/model.bin"
    yield server
    server.go_on.set()
    await runner.cleanup()


def listing(url: str, data: bytes = DATA, size: int | None = len(DATA)) -> Listing:
    """A model of one file."""
    sha256 = hashlib.sha256(data).hexdigest()
    file = ModelFile(name="model.bin", url=url, size=size, sha256=sha256)
    return Listing(model="tiny", source="here", licence="MIT", files=(file,))


def files_in(folder: Path) -> dict[str, bytes]:
    """What lies there, apart from the mark of a model that is not whole."""
    return {
        path.name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".fetching"
    }


def the_part(folder: Path) -> Path:
    (part,) = folder.rglob("*.part")
    return part


async def broken_off(server: Server, cache: Path) -> None:
    """Have a part of the file in the cache: it broke off, and then the server was down."""
    server.cuts.append(CUT)
    server.cuts.append(0)
    with pytest.raises(SetupError, match=r"broke off after 1\.2 MB, which are kept"):
        await fetch(listing(server.url), cache)
    assert the_part(cache).read_bytes() == DATA[:CUT]
    server.asked.clear()


async def test_a_download_that_breaks_off_goes_on_by_itself(server: Server, tmp_path: Path) -> None:
    """As long as every try brings something, nothing is asked for twice."""
    server.cuts += [CUT, CUT, 1]
    seen: list[int] = []
    await fetch(listing(server.url), tmp_path, lambda name, count: seen.append(count))
    assert files_in(tmp_path) == {"model.bin": DATA}
    assert server.asked == ["", *(f"bytes={n}-" for n in (CUT, 2 * CUT, 2 * CUT + 1))]
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)


@pytest.mark.parametrize("size", [len(DATA), None])
async def test_the_next_time_goes_on_with_what_came(
    server: Server, tmp_path: Path, size: int | None
) -> None:
    """The rest alone is asked for, and the bar begins where it stood."""
    await broken_off(server, tmp_path)
    seen: list[int] = []
    await fetch(listing(server.url, size=size), tmp_path, lambda name, count: seen.append(count))
    assert server.asked == [f"bytes={CUT}-"]
    assert (seen[0], seen[-1]) == (CUT, len(DATA))
    assert files_in(tmp_path) == {"model.bin": DATA}


async def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    """What it gives from the beginning is not put behind what there was."""
    await broken_off(server, tmp_path)
    server.ranges = False
    seen: list[int] = []
    await fetch(listing(server.url), tmp_path, lambda name, count: seen.append(count))
    assert files_in(tmp_path) == {"model.bin": DATA}
    assert seen[:2] == [CUT, 0]


async def test_a_server_without_ranges_that_always_breaks_off_is_given_up(
    server: Server, tmp_path: Path
) -> None:
    """It is not asked for ever for the same beginning."""
    server.ranges = False
    server.cuts += [CUT] * 10
    with pytest.raises(SetupError, match="broke off after"):
        await fetch(listing(server.url), tmp_path)
    assert len(server.asked) == 2


async def test_a_range_that_was_not_asked_for_is_not_taken(server: Server, tmp_path: Path) -> None:
    """A server that goes on at another place is asked for all of it."""
    await broken_off(server, tmp_path)
    server.shift = 10
    await fetch(listing(server.url), tmp_path)
    assert server.asked == [f"bytes={CUT}-", ""]
    assert files_in(tmp_path) == {"model.bin": DATA}


async def test_a_part_that_holds_all_of_it_is_enough(server: Server, tmp_path: Path) -> None:
    """Cut off between the last byte and its name: nothing is asked for at all."""
    await broken_off(server, tmp_path)
    the_part(tmp_path).write_bytes(DATA)
    await fetch(listing(server.url), tmp_path)
    assert (server.asked, files_in(tmp_path)) == ([], {"model.bin": DATA})


@pytest.mark.parametrize("part", [DATA[:CUT] + b"x", DATA[:CUT][::-1]])
async def test_a_spoiled_part_is_removed_with_a_sentence(
    server: Server, tmp_path: Path, part: bytes
) -> None:
    """The checksum decides; the time after that it is fetched from the beginning."""
    await broken_off(server, tmp_path)
    the_part(tmp_path).write_bytes(part)
    with pytest.raises(SetupError, match=r"not what was announced.*nothing was kept"):
        await fetch(listing(server.url), tmp_path)
    assert files_in(tmp_path) == {}
    await fetch(listing(server.url), tmp_path)
    assert files_in(tmp_path) == {"model.bin": DATA}


async def test_a_part_that_is_too_long_is_removed(server: Server, tmp_path: Path) -> None:
    """There is nothing to go on with, so nothing is asked for."""
    await broken_off(server, tmp_path)
    the_part(tmp_path).write_bytes(DATA + b"x")
    with pytest.raises(SetupError, match="nothing was kept"):
        await fetch(listing(server.url), tmp_path)
    assert (server.asked, files_in(tmp_path)) == ([], {})


async def test_a_part_as_long_as_the_file_that_is_another_is_fetched_anew(
    server: Server, tmp_path: Path
) -> None:
    """The server has nothing behind it to give, and says so."""
    await broken_off(server, tmp_path)
    the_part(tmp_path).write_bytes(bytes(len(DATA)))
    await fetch(listing(server.url), tmp_path)
    assert server.asked == [f"bytes={len(DATA)}-", ""]
    assert files_in(tmp_path) == {"model.bin": DATA}


async def test_parts_of_an_older_content_are_not_gone_on_with(
    server: Server, tmp_path: Path
) -> None:
    """The model has changed at the hub since: what had come of the old one is removed."""
    await broken_off(server, tmp_path)
    server.data = DATA[::-1]
    await fetch(listing(server.url, server.data), tmp_path)
    assert server.asked == [""]
    assert files_in(tmp_path) == {"model.bin": server.data}


async def test_a_server_that_refuses_costs_nothing_of_what_came(
    server: Server, tmp_path: Path
) -> None:
    """One sentence with its status; the part waits for better times."""
    await broken_off(server, tmp_path)
    server.status = 503
    with pytest.raises(SetupError, match=r"does not give model\.bin: 503"):
        await fetch(listing(server.url), tmp_path)
    server.status = 302
    with pytest.raises(SetupError, match="broke off after"):
        await fetch(listing(server.url), tmp_path)
    assert the_part(tmp_path).read_bytes() == DATA[:CUT]


async def test_a_server_that_would_compress_is_asked_not_to(server: Server, tmp_path: Path) -> None:
    """Ranges count the bytes of the file, and so does its length."""
    address = at_address(server.url, hashlib.sha256(DATA).hexdigest(), "tiny", "MIT")
    server.cuts.append(CUT)
    await fetch(address, tmp_path)
    assert files_in(tmp_path) == {"model.bin": DATA}


async def test_a_full_disk_is_one_sentence(server: Server, tmp_path: Path) -> None:
    """What fitted is a right beginning, and is gone on with when there is room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CUT, hard))
    try:
        with pytest.raises(SetupError, match=r"model\.bin cannot be written: File too large\."):
            await fetch(listing(server.url), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = the_part(tmp_path).read_bytes()
    assert kept == DATA[: len(kept)]
    await fetch(listing(server.url), tmp_path)
    assert files_in(tmp_path) == {"model.bin": DATA}


async def test_what_cannot_fit_is_not_begun(server: Server, tmp_path: Path) -> None:
    """The owner reads how much is needed and how much is free, before a byte has come."""
    with pytest.raises(SetupError, match="needs 1000000000000 MB more, and only"):
        await fetch(listing(server.url, size=10**18), tmp_path)
    assert server.asked == []


async def test_a_cache_that_cannot_be_written_is_one_sentence(
    server: Server, tmp_path: Path
) -> None:
    """Also where a file stands in the way of a folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be written: Not a directory"):
        await fetch(listing(server.url), tmp_path / "file")
    (tmp_path / "tiny" / "model.bin").mkdir(parents=True)
    with pytest.raises(SetupError, match="cannot be written: Is a directory"):
        await fetch(listing(server.url), tmp_path)


FETCHER = """
import asyncio, sys
from pathlib import Path
from openpool.worker.runtimes.models import at_address, fetch
asyncio.run(fetch(at_address(sys.argv[1], sys.argv[2], "tiny", "MIT"), Path(sys.argv[3])))
"""


async def another_process(server: Server, cache: Path) -> asyncio.subprocess.Process:
    """One that fetches the same, and is in the middle of it."""
    server.cuts.append(CUT)
    server.stalls = True
    sha256 = hashlib.sha256(DATA).hexdigest()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FETCHER, server.url, sha256, str(cache)
    )
    await server.stalling.wait()
    return process


async def test_two_processes_do_not_fetch_the_same_at_once(server: Server, tmp_path: Path) -> None:
    """The second hears that there is a first, which is not disturbed."""
    process = await another_process(server, tmp_path)
    with pytest.raises(SetupError, match="tiny is being fetched by another process"):
        await fetch(listing(server.url), tmp_path)
    server.stalls = False
    server.go_on.set()
    assert await process.wait() == 0
    assert files_in(tmp_path) == {"model.bin": DATA}
    await fetch(listing(server.url), tmp_path)
    assert server.asked == ["", f"bytes={CUT}-"]


async def test_a_killed_process_keeps_nobody_out(server: Server, tmp_path: Path) -> None:
    """What it had begun is not loaded as if it were whole, and is gone on with."""
    process = await another_process(server, tmp_path)
    process.kill()
    await process.wait()
    server.stalls = False
    server.go_on.set()
    with pytest.raises(ModelMissing, match="Only a part of the model"):
        model_folder({}, tmp_path, "tiny", "model.bin")
    await fetch(listing(server.url), tmp_path)
    assert files_in(tmp_path) == {"model.bin": DATA}
    assert model_folder({}, tmp_path, "tiny", "model.bin") == tmp_path / "tiny"


async def test_the_command_goes_on_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    """Its owner reads what to do, and does it."""
    server.cuts += [CUT, 0]
    code, words = await pull(server, tmp_path)
    assert (code, server.asked) == (2, ["", f"bytes={CUT}-"])
    assert "openpool: model.bin broke off after 1.2 MB, which are kept" in words
    code, words = await pull(server, tmp_path)
    assert (code, server.asked[2:]) == (0, [f"bytes={CUT}-"])
    assert words.splitlines()[-1].startswith("tiny is in ")
    assert files_in(tmp_path) == {"model.bin": DATA}


async def pull(server: Server, cache: Path) -> tuple[int | None, str]:
    """The command's exit code and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openpool", "worker", "models", "pull", server.url, "--name=tiny"),
        *("--sha256", hashlib.sha256(DATA).hexdigest(), "--cache", str(cache), "--yes"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, words = await process.communicate()
    return process.returncode, words.decode()
