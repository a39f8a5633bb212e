"""`openpool worker models`: which runtimes there are, which models are here, and fetching them."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.groups import Group
from openpool.cli.options import Json, examples
from openpool.cli.output import note, print_json, show_table
from openpool.core.errors import SetupError

if TYPE_CHECKING:
    from openpool.worker.runtimes.models import Listing

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Models of AI runtimes: which there are, and fetching them.",
    epilog=examples(
        "openpool worker models list", "openpool worker models pull faster-whisper-small"
    ),
)

Cache = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Where models are kept; also $OPENPOOL_MODELS."),
]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name, owner/repository[:pattern], or an address.")
]


@app.command("list", epilog=examples("openpool worker models list"))
def list_models(cache: Cache = None, as_json: Json = False) -> None:
    """Show the runtimes, the models known by name, and which of them are on this machine."""
    from openpool.worker.runtimes.catalogue import CATALOGUE
    from openpool.worker.runtimes.models import HERE, KNOWN, default_cache, state

    folder = cache or default_cache()
    place = {path.name: state(path) for path in sorted(folder.glob("*")) if path.is_dir()}
    here = [name for name, words in place.items() if words == HERE]
    if as_json:
        runtimes = {name: entry.meaning for name, entry in CATALOGUE.items()}
        print_json({"cache": str(folder), "runtimes": runtimes, "here": here, "known": list(KNOWN)})
        return
    rows = [
        (name, entry.model or "to be named", entry.meaning) for name, entry in CATALOGUE.items()
    ]
    rows.append(("http", "to be named", "Any server that speaks HTTP"))
    show_table(("runtime", "model", "what it does~"), rows)
    fetchable = [
        (name, known.runtime, known.repository, place.get(name, "no"))
        for name, known in KNOWN.items()
    ]
    fetchable += [(name, "-", "-", words) for name, words in place.items() if name not in KNOWN]
    show_table(("model", "of runtime", "comes from", "fetched"), fetchable)
    note(f"Models are fetched to {folder}; `openpool worker models pull MODEL` does that.")


@app.command(
    "pull",
    epilog=examples(
        "openpool worker models pull faster-whisper-small",
        "openpool worker models pull 'Qwen/Qwen2.5-0.5B-Instruct-GGUF:*q4_k_m.gguf'",
        "openpool worker models pull https://example.org/m.gguf --sha256 9f86…",
    ),
)
def pull(
    model: Model,
    sha256: Annotated[
        str, typer.Option("--sha256", metavar="HEX", help="Checksum, for an address.")
    ] = "",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What to call it, for an address.")
    ] = "",
    licence: Annotated[
        str, typer.Option("--licence", metavar="TEXT", help="Its licence, for an address.")
    ] = "",
    cache: Cache = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Fetch a model, after showing its size, checksums and licence."""
    asyncio.run(_pull(model, sha256, name, licence, cache, yes))


async def _pull(
    model: str, sha256: str, name: str, licence: str, cache: Path | None, yes: bool
) -> None:
    from openpool.worker.runtimes.models import at_address, default_cache, fetch, look_up

    if model.startswith(("http://", "https://")):
        listing = at_address(model, sha256, name, licence)
    else:
        listing = await look_up(model)
    _show(listing)
    if not yes:
        _agree()
    folder = cache or default_cache()
    with _progress(listing) as advance:
        place = await fetch(listing, folder, advance)
    note(f"{listing.model} is in {place}.")


def _show(listing: "Listing") -> None:
    rows = [
        (file.name, _mb(file.size), file.sha256 or f"git {file.git_sha1}") for file in listing.files
    ]
    show_table(("file", "MB>", "sha256"), rows)
    note(
        f"{listing.model} from {listing.source}: {_mb(listing.size)} MB, licence {listing.licence}."
    )


@contextmanager
def _progress(listing: "Listing") -> Iterator[Callable[[str, int], None]]:
    """A bar for each file; gives what is to be called with how many bytes are here."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = {file.name: progress.add_task(file.name, total=file.size) for file in listing.files}

        def moved(name: str, count: int) -> None:
            known = progress.tasks[bars[name]].completed
            # what was here before, or is gone again, says nothing about the speed
            change = progress.update if 0 < known < count else progress.reset
            change(bars[name], completed=count)

        yield moved


def _mb(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:.1f}"


def _agree() -> None:
    if not sys.stdin.isatty():
        raise SetupError("Say --yes to fetch it; nobody is there to ask.")
    if not typer.confirm("Fetch it?", err=True):
        raise SetupError("Nothing was fetched.")
