"""Fetching models, from a stand-in of the hub that runs here."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from openpool.cli import run
from openpool.core.errors import SetupError
from openpool.worker.runtimes.models import (
    KNOWN,
    Listing,
    at_address,
    default_cache,
    fetch,
    look_up,
)

WEIGHTS = bytes(range(256)) * 5000
CONFIG = b'{"a": 1}'


class Hub:
    """One repository."""

    def __init__(self) -> None:
        self.weights = WEIGHTS
        self.extra = "../../evil"
        self.downloads: list[str] = []
        self.url = ""

    async def listing(self, request: web.Request) -> web.Response:
        if request.match_info["repo"] != "tiny":
            return web.Response(status=404)
        sha1 = hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
        return web.json_response(
            {
                "sha": "c0ffee",
                "cardData": {"license": "apache-2.0"},
                "siblings": [
                    {
                        "rfilename": "model.bin",
                        "size": len(WEIGHTS),
                        "blobId": "x",
                        "lfs": {
                            "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
                            "size": len(WEIGHTS),
                            "pointerSize": 134,
                        },
                    },
                    {"rfilename": "sub/config.json", "size": len(CONFIG), "blobId": sha1},
                    {"rfilename": self.extra, "size": 1, "blobId": "x"},
                ],
            }
        )

    async def file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.downloads.append(name)
        return web.Response(body=self.weights if name == "model.bin" else CONFIG)


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    """The stand-in, which is asked instead of the real one."""
    hub = Hub()
    app = web.Application()
    app.router.add_get("/api/models/owner/{repo}", hub.listing)
    app.router.add_get("/owner/tiny/resolve/c0ffee/{name:.*}", hub.file)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    yield hub
    await runner.cleanup()


async def test_a_model_is_described_before_it_is_fetched(hub: Hub) -> None:
    """Size, checksum and licence are known without a download; strange names are left out."""
    found = await look_up("owner/tiny")
    assert (found.model, found.licence) == ("tiny", "apache-2.0")
    assert [file.name for file in found.files] == ["model.bin", "sub/config.json"]
    assert found.files[0].sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert found.size == len(WEIGHTS) + len(CONFIG)
    assert hub.downloads == []


async def test_a_model_is_fetched_and_checked(hub: Hub, tmp_path: Path) -> None:
    """Its files lie in a folder of its name; progress tells all bytes; a second time is free."""
    seen: dict[str, int] = {}

    def progress(name: str, count: int) -> None:
        seen[name] = count

    found = await look_up("owner/tiny")
    folder = await fetch(found, tmp_path, progress)
    assert folder == tmp_path / "tiny"
    assert (folder / "model.bin").read_bytes() == WEIGHTS
    assert (folder / "sub" / "config.json").read_bytes() == CONFIG
    assert seen == {"model.bin": len(WEIGHTS), "sub/config.json": len(CONFIG)}
    await fetch(found, tmp_path)
    assert hub.downloads == ["model.bin", "sub/config.json"]


async def test_some_files_can_be_chosen(hub: Hub) -> None:
    """Repositories with many sizes of one model would be too much."""
    assert [file.name for file in (await look_up("owner/tiny:*.bin")).files] == ["model.bin"]
    with pytest.raises(SetupError, match=r"has no file \*\.gguf"):
        await look_up("owner/tiny:*.gguf")


@pytest.mark.parametrize("wrong", [WEIGHTS[:-1] + b"!", WEIGHTS[:-1], WEIGHTS + b"x", b""])
async def test_what_is_not_right_is_not_kept(hub: Hub, tmp_path: Path, wrong: bytes) -> None:
    """Altered, cut or longer files leave nothing behind."""
    hub.weights = wrong
    with pytest.raises(SetupError, match="nothing was kept"):
        await fetch(await look_up("owner/tiny"), tmp_path)
    assert files_in(tmp_path) == []


def files_in(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and p.name != ".fetching"]


async def test_a_damaged_file_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    """What lies in the cache counts only with the right checksum."""
    found = await look_up("owner/tiny")
    folder = await fetch(found, tmp_path)
    (folder / "model.bin").write_bytes(b"damaged")
    await fetch(found, tmp_path)
    assert (folder / "model.bin").read_bytes() == WEIGHTS


async def test_a_file_from_an_address(hub: Hub, tmp_path: Path) -> None:
    """With its checksum, any file will do."""
    url = f"{hub.url}/owner/tiny/resolve/c0ffee/model.bin"
    right = at_address(url, hashlib.sha256(WEIGHTS).hexdigest(), "mine", "MIT")
    assert (await fetch(right, tmp_path) / "model.bin").read_bytes() == WEIGHTS
    wrong = at_address(url, "0" * 64, "other", "")
    with pytest.raises(SetupError, match="checksum"):
        await fetch(wrong, tmp_path)


@pytest.mark.parametrize(
    ("url", "sha256"),
    [
        ("http://h/m.gguf", ""),
        ("ftp://h/m.gguf", "0" * 64),
        ("http://h/..", "0" * 64),
        ("http://[::1/m.gguf", "0" * 64),
        ("http://h/%2e%2e%2fm.gguf", "0" * 64),
    ],
)
def test_an_address_needs_a_checksum_and_a_name(url: str, sha256: str) -> None:
    """Nothing unchecked is fetched."""
    with pytest.raises(SetupError):
        at_address(url, sha256, "", "")


async def test_names_of_folders_are_checked(tmp_path: Path) -> None:
    """A model cannot be put outside the cache."""
    listing = Listing(model="../up", source="", licence="", files=())
    with pytest.raises(SetupError, match="name of a folder"):
        await fetch(listing, tmp_path)


async def test_offline_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the hub, the owner reads what to do instead."""
    for hub in ("http://127.0.0.1:1", "http://a..b", "http://[::1", "nowhere"):
        monkeypatch.setenv("HF_ENDPOINT", hub)
        with pytest.raises(SetupError, match="copy the folder into the cache"):
            await look_up(next(iter(KNOWN)))


async def test_unknown_names_are_explained(hub: Hub) -> None:
    """A typing mistake lists what there is; a missing repository is named."""
    with pytest.raises(SetupError, match="faster-whisper-small"):
        await look_up("whisper")
    with pytest.raises(SetupError, match="404"):
        await look_up("owner/nothing")


def test_the_cache_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By a variable of its own, or the one for all caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "openpool" / "models"
    monkeypatch.setenv("OPENPOOL_MODELS", str(tmp_path / "own"))
    assert default_cache() == tmp_path / "own"


def test_the_command_lists_what_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Runtimes, models known by name, and what is here already."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".fetching").touch()
    monkeypatch.setenv("OPENPOOL_MODELS", str(tmp_path))
    assert run(["worker", "models", "list", "--json"]) == 0
    listed = json.loads(capfdbinary.readouterr().out)
    assert listed["here"] == ["mine"]
    assert {"llm", "speech-to-text", "ocr"} <= set(listed["runtimes"])
    assert "all-minilm-l6-v2" in listed["known"]
    assert run(["worker", "models", "list"]) == 0
    table = capfdbinary.readouterr().out
    assert b"whisper" in table
    assert [line.split()[-2:] for line in table.splitlines() if b"begun" in line] == [
        [b"in", b"part"]
    ]


def test_the_command_offline(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One sentence and exit code 2, no trace."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert run(["worker", "models", "pull", "owner/tiny"]) == 2
    (sentence,) = capfd.readouterr().err.splitlines()
    assert sentence.startswith("openpool: owner/tiny cannot be fetched")
