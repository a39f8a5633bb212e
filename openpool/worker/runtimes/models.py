"""Models from a hub or from any address: looked up first, fetched only when their owner agreed.

Size, checksum and licence come from the hub at the time of asking. A file counts only once its
checksum was right; nothing half fetched is ever found by a runtime.
"""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from openpool.core.errors import SetupError

HUB = "https://huggingface.co"
HUB_VARIABLE = "HF_ENDPOINT"
CACHE_VARIABLE = "OPENPOOL_MODELS"
CONNECT_S = 10.0
SILENT_S = 60.0
LISTING_BYTES_MAX = 4 << 20
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
CHUNK_BYTES = 1 << 20


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


class ModelFile(Struct, frozen=True, kw_only=True):
    """A file to fetch. `sha256`, or for small ones the hub's `git_sha1`."""

    name: str
    url: str
    size: int | None
    sha256: str = ""
    git_sha1: str = ""


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
    parts = urlsplit(url)
    name = parts.path.rsplit("/", 1)[-1]
    if parts.scheme not in {"http", "https"} or not parts.hostname or not FILE_NAME.fullmatch(name):
        raise SetupError(f"{url} is no address of a file.")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise SetupError("A file from an address of your own needs --sha256, its 64 digits.")
    model = model or name.rsplit(".", 1)[0].lower()
    file = ModelFile(name=name, url=url, size=None, sha256=sha256)
    return Listing(
        model=model, source=parts.hostname, licence=licence or "not stated", files=(file,)
    )


async def fetch(
    listing: Listing, cache: Path, progress: Callable[[str, int], None] = lambda name, count: None
) -> Path:
    """Fetch all files of a model; gives its folder. `progress` hears of bytes as they come.

    Raises SetupError if something is not there, too large or not what it should be.
    """
    if not MODEL_NAME.fullmatch(listing.model):
        raise SetupError(f"{listing.model!r} cannot be the name of a folder; choose one by --name.")
    folder = cache / listing.model
    async with _session() as session:
        for file in listing.files:
            target = folder / file.name
            if target.is_file() and _is_right(file, _Digest.of(target)):
                progress(file.name, file.size or 0)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            await _fetch_file(session, file, target, progress)
    return folder


async def _on_hub(model: str, repository: str, patterns: tuple[str, ...]) -> Listing:
    url = f"{hub()}/api/models/{quote(repository)}?blobs=true"
    async with _session() as session:
        content = await _get_small(session, url, repository)
    try:
        found = msgspec.json.decode(content, type=_Repository)
    except msgspec.MsgspecError:
        raise SetupError(f"{hub()} gave no usable answer about {repository}.") from None
    wanted = [each for each in found.siblings if _matches(each.rfilename, patterns)]
    if not wanted:
        raise SetupError(f"{repository} has no file {' or '.join(patterns)}.")
    licence = found.card.license if found.card else "not stated"
    return Listing(
        model=model,
        source=f"{urlsplit(hub()).hostname}/{repository}",
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
            _check_status(response, what)
            content = await response.content.read(LISTING_BYTES_MAX)
            while not response.content.at_eof() and len(content) < LISTING_BYTES_MAX:
                content += await response.content.read(LISTING_BYTES_MAX)
            return content
    except (aiohttp.ClientError, TimeoutError, OSError):
        raise _offline(what, url) from None


async def _fetch_file(
    session: aiohttp.ClientSession,
    file: ModelFile,
    target: Path,
    progress: Callable[[str, int], None],
) -> None:
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as out:
            digest = await _receive(session, file, out.write, progress)
        if not _is_right(file, digest):
            raise SetupError(
                f"{file.name} is not what was announced: its checksum is {digest.sha256}; "
                "nothing was kept."
            )
        part.replace(target)
    except (aiohttp.ClientError, TimeoutError):
        raise _offline(file.name, file.url) from None
    except OSError as error:
        raise SetupError(f"{target} cannot be written: {error.strerror}.") from None
    finally:
        part.unlink(missing_ok=True)


async def _receive(
    session: aiohttp.ClientSession,
    file: ModelFile,
    write: Callable[[bytes], int],
    progress: Callable[[str, int], None],
) -> "_Digest":
    async with session.get(file.url) as response:
        _check_status(response, file.name)
        size = file.size if file.size is not None else response.content_length
        digest = _Digest(size or 0)
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            digest.update(chunk)
            if size is not None and digest.count > size:
                raise SetupError(f"{file.name} is larger than was announced; nothing was kept.")
            write(chunk)
            progress(file.name, len(chunk))
        return digest


class _Digest:
    """Both kinds of checksum of a file, while it comes."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self._sha256 = hashlib.sha256()
        self._sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    @classmethod
    def of(cls, path: Path) -> "_Digest":
        """Of a file that is there."""
        digest = cls(path.stat().st_size)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest

    def update(self, data: bytes) -> None:
        self.count += len(data)
        self._sha256.update(data)
        self._sha1.update(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def git_sha1(self) -> str:
        return self._sha1.hexdigest()


def _is_right(file: ModelFile, digest: _Digest) -> bool:
    if file.sha256:
        return digest.sha256 == file.sha256
    return bool(file.git_sha1) and digest.git_sha1 == file.git_sha1


def _check_status(response: aiohttp.ClientResponse, what: str) -> None:
    if response.status != 200:
        host = response.url.host
        raise SetupError(f"{host} does not give {what}: {response.status} {response.reason}.")


def _offline(what: str, url: str) -> SetupError:
    host = urlsplit(url).hostname
    return SetupError(
        f"{what} cannot be fetched: {host} is not reached from this machine. Fetch it on a machine "
        "that is online and copy the folder into the cache, or set HF_ENDPOINT to a mirror."
    )
