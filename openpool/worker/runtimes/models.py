"""Models from a hub or from any address: looked up first, fetched only when their owner agreed.

Size, checksum and licence come from the hub at the time of asking. A file counts only once its
checksum was right; nothing half fetched is ever found by a runtime.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import aiohttp
import msgspec
from msgspec import Struct

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import SetupError
from openpool.worker.runtimes.download import (
    ModelFile,
    Progress,
    check_status,
    download,
    host_of,
    offline,
)
from openpool.worker.runtimes.folders import FETCHING

HUB = "https://huggingface.co"
HUB_VARIABLE = "HF_ENDPOINT"
CACHE_VARIABLE = "OPENPOOL_MODELS"
HERE = "here"
CONNECT_S = 10.0
SILENT_S = 60.0
LISTING_BYTES_MAX = 4 << 20
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class Known(Struct, frozen=True):
    """A model that can be fetched by its name alone."""

    runtime: str
    repository: str
    files: tuple[str, ...]
    """Patterns of the files that the runtime needs."""


_WHISPER = (
    "model.bin",
    "config.json",
    "tokenizer.json",
    "vocabulary.*",
    "preprocessor_config.json",
)
_SAM2 = ("onnx/vision_encoder.onnx*", "onnx/prompt_encoder_mask_decoder.onnx*")
_DETR = ("onnx/model.onnx", "config.json", "preprocessor_config.json")
_BERT = ("model.safetensors", "config.json", "tokenizer.json", "sentence_bert_config.json")

KNOWN = {
    "all-minilm-l6-v2": Known("embeddings", "sentence-transformers/all-MiniLM-L6-v2", _BERT),
    "dfine-s-coco": Known("object-detection", "onnx-community/dfine_s_coco-ONNX", _DETR),
    "dfine-m-coco": Known("object-detection", "onnx-community/dfine_m_coco-ONNX", _DETR),
    "rfdetr-medium": Known("object-detection", "onnx-community/rfdetr_medium-ONNX", _DETR),
    "faster-whisper-tiny": Known("speech-to-text", "Systran/faster-whisper-tiny", _WHISPER),
    "faster-whisper-small": Known("speech-to-text", "Systran/faster-whisper-small", _WHISPER),
    "faster-whisper-large-v3": Known("speech-to-text", "Systran/faster-whisper-large-v3", _WHISPER),
    "kokoro-82m": Known(
        "kokoro", "onnx-community/Kokoro-82M-v1.0-ONNX", ("onnx/model.onnx", "voices/*.bin")
    ),
    "qwen2.5-0.5b-instruct": Known(
        "llm", "Qwen/Qwen2.5-0.5B-Instruct-GGUF", ("qwen2.5-0.5b-instruct-q4_k_m.gguf",)
    ),
    "sam2.1-hiera-tiny": Known("sam2", "onnx-community/sam2.1-hiera-tiny-ONNX", _SAM2),
    "sam2.1-hiera-small": Known("sam2", "onnx-community/sam2.1-hiera-small-ONNX", _SAM2),
    "sam2.1-hiera-base-plus": Known("sam2", "onnx-community/sam2.1-hiera-base-plus-ONNX", _SAM2),
    "sam2.1-hiera-large": Known("sam2", "onnx-community/sam2.1-hiera-large-ONNX", _SAM2),
}


class Listing(Struct, frozen=True, kw_only=True):
    """A model before it is fetched."""

    model: str
    source: str
    licence: str
    files: tuple[ModelFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files, as far as they are known."""
        return sum(file.size or 0 for file in self.files)


class _Lfs(Struct, frozen=True):
    sha256: str
    size: int


class _Sibling(Struct, frozen=True):
    rfilename: str
    size: int | None = None
    blob_id: str = msgspec.field(default="", name="blobId")
    lfs: _Lfs | None = None


class _Card(Struct, frozen=True):
    license: str | list[str] = "not stated"


class _Repository(Struct, frozen=True):
    sha: str
    siblings: list[_Sibling]
    card: _Card | None = msgspec.field(default=None, name="cardData")


def default_cache() -> Path:
    """Where models are kept if nobody says otherwise."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "openpool" / "models"


def hub() -> str:
    """The hub that is asked, which the usual variable may replace by a mirror."""
    return os.environ.get(HUB_VARIABLE, HUB).rstrip("/")


async def look_up(name: str) -> Listing:
    """What fetching a model would fetch: one of `KNOWN`, or `owner/repository` of the hub,
    `owner/repository:pattern` for some of its files. Raises SetupError."""
    known = KNOWN.get(name)
    if known is not None:
        return await _on_hub(name, known.repository, known.files)
    repository, _, pattern = name.partition(":")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise SetupError(
            f"There is no model {name!r}; there are {', '.join(KNOWN)}, and any owner/repository "
            f"of {hub()}, or an https:// address with --sha256."
        )
    model = repository.split("/")[1].lower()
    return await _on_hub(model, repository, (pattern or "*",))


def at_address(url: str, sha256: str, model: str, licence: str) -> Listing:
    """One file from anywhere, whose checksum its owner knows. Raises SetupError."""
    host, name = host_of(url), unquote(url.partition("?")[0].rsplit("/", 1)[-1])
    if not host or not FILE_NAME.fullmatch(name):
        raise SetupError(f"{url} is no address of a file.")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise SetupError("A file from an address of your own needs --sha256, its 64 digits.")
    model = model or name.rsplit(".", 1)[0].lower()
    file = ModelFile(name=name, url=url, size=None, sha256=sha256)
    return Listing(model=model, source=host, licence=licence or "not stated", files=(file,))


async def fetch(
    listing: Listing, cache: Path, progress: Progress = lambda name, count: None
) -> Path:
    """Fetch all files of a model; gives its folder. What was begun before is gone on with.

    Raises SetupError if something is not there, or not what it should be, or cannot be kept, or
    another process fetches the same.
    """
    if not MODEL_NAME.fullmatch(listing.model):
        raise SetupError(f"{listing.model!r} cannot be the name of a folder; choose one by --name.")
    folder = cache / listing.model
    with _alone(folder):
        async with _session() as session:
            for file in listing.files:
                await download(session, file, folder / file.name, progress)
    return folder


def state(folder: Path) -> str:
    """Whether all of the model in this folder is here, in words."""
    return "in part" if (folder / FETCHING).exists() else HERE


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other process fetch into the folder. The mark stays until all of it has come."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark = (folder / FETCHING).open("wb")
    except OSError as error:
        raise SetupError(f"{folder} cannot be written: {error.strerror}.") from None
    with mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(
                f"{folder.name} is being fetched by another process; wait until it is done."
            ) from None
        except OSError:
            pass  # a file system without locks: whoever fetches twice at once is told by checksums
        yield
        (folder / FETCHING).unlink(missing_ok=True)


async def _on_hub(model: str, repository: str, patterns: tuple[str, ...]) -> Listing:
    url = f"{hub()}/api/models/{quote(repository)}?blobs=true"
    async with _session() as session:
        content = await _get_small(session, url, repository)
    try:
        found = msgspec.json.decode(content, type=_Repository)
    except UNREADABLE:
        raise SetupError(f"{hub()} gave no usable answer about {repository}.") from None
    wanted = [each for each in found.siblings if _matches(each.rfilename, patterns)]
    if not wanted:
        raise SetupError(f"{repository} has no file {' or '.join(patterns)}.")
    licence = found.card.license if found.card else "not stated"
    return Listing(
        model=model,
        source=f"{host_of(hub())}/{repository}",
        licence=licence if isinstance(licence, str) else ", ".join(licence),
        files=tuple(_hub_file(each, repository, found.sha) for each in wanted),
    )


def _hub_file(sibling: _Sibling, repository: str, commit: str) -> ModelFile:
    name = sibling.rfilename
    lfs = sibling.lfs
    return ModelFile(
        name=name,
        url=f"{hub()}/{quote(repository)}/resolve/{quote(commit)}/{quote(name)}",
        size=lfs.size if lfs else sibling.size,
        sha256=lfs.sha256 if lfs else "",
        git_sha1="" if lfs else sibling.blob_id,
    )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    from fnmatch import fnmatchcase

    return bool(FILE_NAME.fullmatch(name)) and any(fnmatchcase(name, each) for each in patterns)


def _session() -> aiohttp.ClientSession:
    patience = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S)
    return aiohttp.ClientSession(timeout=patience, trust_env=True, raise_for_status=False)


async def _get_small(session: aiohttp.ClientSession, url: str, what: str) -> bytes:
    try:
        async with session.get(url) as response:
            check_status(response, what)
            content = await response.content.read(LISTING_BYTES_MAX)
            while not response.content.at_eof() and len(content) < LISTING_BYTES_MAX:
                content += await response.content.read(LISTING_BYTES_MAX)
            return content
    except (aiohttp.ClientError, OSError, UnicodeError):
        raise offline(what, url) from None
