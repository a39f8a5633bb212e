"""`openpool worker`: joins a pool and works, or measures how much this machine can take."""

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from openpool.cli import models
from openpool.cli.groups import Worker
from openpool.cli.membership import Name, NewWallet, PassphraseFile, WalletFile, Yes
from openpool.cli.options import examples
from openpool.cli.output import console, note, print_json
from openpool.core.errors import SetupError
from openpool.core.texts import plural

if TYPE_CHECKING:
    from openpool.core.joinlink import JoinLink
    from openpool.worker.gpu import Machine
    from openpool.worker.offers import WorkerOffers
    from openpool.worker.terms import EngineSettings

TOKEN_VARIABLE = "OPENPOOL_TOKEN"  # noqa: S105 - the name of a variable

Link = Annotated[
    str, typer.Argument(metavar="JOIN_LINK", help="openpool://… from the pool's page.")
]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        metavar="TOKEN|file:PATH",
        help="A token from enrolling elsewhere; also $OPENPOOL_TOKEN.",
        envvar=TOKEN_VARIABLE,
        show_envvar=False,
    ),
]
Sessions = Annotated[
    int,
    typer.Option(
        "--sessions", metavar="N", min=0, max=1000, help="Streams at once; 0 makes a guess."
    ),
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Leave the GPU alone.")]
Preset = Annotated[
    Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower"],
    typer.Option("--preset", help="x264's trade of CPU for quality."),
]
Drain = Annotated[
    float,
    typer.Option(
        "--drain-s", metavar="S", min=0, max=600, help="How long SIGTERM waits for segments."
    ),
]
Bench = Annotated[
    bool, typer.Option("--bench", help="Measure, and suggest how many sessions to take.")
]
Seconds = Annotated[
    float,
    typer.Option("--seconds", metavar="S", min=2, max=3600, help="How long --bench may take."),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    typer.Option("--log-level", help="The least that is logged."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report of --bench as JSON.")]


Runtimes = Annotated[
    Path | None,
    typer.Option("--runtimes", metavar="FILE", help="AI runtimes to offer; see docs/how-to."),
]
NoTranscoding = Annotated[
    bool, typer.Option("--no-transcoding", help="Offer the AI runtimes only.")
]


EXAMPLES = examples(
    "openpool worker --bench",
    "openpool worker 'openpool://…' --wallet key.json --sessions 4",
    "openpool worker 'openpool://…' --token file:/run/secrets/token",
    "openpool worker 'openpool://…' --runtimes runtimes.yaml",
    "openpool worker models list",
)


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    group = typer.Typer(cls=Worker, help=worker.__doc__, epilog=EXAMPLES)
    group.command("run", epilog=EXAMPLES)(worker)
    group.add_typer(models.app, name="models")
    app.add_typer(group, name="worker")


def worker(
    link: Link = "",
    token: Token = "",
    wallet: WalletFile = None,
    new_wallet: NewWallet = False,
    passphrase_file: PassphraseFile = None,
    name: Name = "worker",
    accept_terms: Yes = False,
    sessions: Sessions = 0,
    cpu: Cpu = False,
    preset: Preset = "veryfast",
    runtimes: Runtimes = None,
    no_transcoding: NoTranscoding = False,
    drain_s: Drain = 30.0,
    bench: Bench = False,
    seconds: Seconds = 30.0,
    log_level: LogLevel = "info",
    as_json: AsJson = False,
) -> None:
    """Join a pool, and transcode and serve AI until SIGTERM, which lets running jobs end first.

    Enrols first if this machine has no token for the pool. Needs no open port.
    """
    from openpool import logs, loop

    logs.configure(log_level, "auto")
    if bench:
        asyncio.run(_bench(cpu, preset, seconds, as_json))
        return
    offers = _offers(runtimes, no_transcoding)
    door = _door(link, token, wallet, new_wallet, passphrase_file, name, accept_terms)
    _tell(door)
    work = _serve_ai(door, offers, drain_s) if no_transcoding else None
    code = loop.run(work or _work(door, sessions, cpu, preset, drain_s, offers))
    if code:
        raise typer.Exit(code)


@dataclass(frozen=True, slots=True)
class _Door:
    """Where a pool is, and what opens it."""

    link: "JoinLink"
    pin: str
    token: str = field(repr=False)


def _door(
    text: str,
    token: str,
    wallet: Path | None,
    new_wallet: bool,
    passphrase_file: Path | None,
    name: str,
    accept_terms: bool,
) -> _Door:
    """The token that was given, or kept from enrolling, or got by enrolling now."""
    from openpool.core.joinlink import parse_join_link
    from openpool.identity import check_pin, load_identity

    if not text:
        raise SetupError("Say which pool to join, by its join link, or measure with --bench.")
    link = parse_join_link(text)
    known = load_identity(link.address)
    pin = check_pin(link, known)
    if token:
        return _Door(link, pin, _token(token))
    if known is not None:
        return _Door(link, pin, known.token)
    from openpool.cli.enrolling import enrol

    enrolled = enrol(
        link,
        wallet=wallet,
        new_wallet=new_wallet,
        passphrase_file=passphrase_file,
        name=name,
        accept_terms=accept_terms,
    )
    note(f"Enrolled as {enrolled.worker} ({enrolled.state}).")
    return _Door(link, pin, enrolled.secret)


def _tell(door: _Door) -> None:
    from openpool.cli.notices import tell_of_new_terms

    tell_of_new_terms(door.link.web, door.pin)


def _token(text: str) -> str:
    if not text.startswith("file:"):
        return text
    from openpool.private_files import read_private_text

    return read_private_text(Path(text.removeprefix("file:")).expanduser(), "The token file")


def _offers(file: Path | None, no_transcoding: bool) -> "WorkerOffers | None":
    """The AI runtimes that the file names. Raises SetupError."""
    if file is None:
        if no_transcoding:
            raise SetupError("Without transcoding, --runtimes must say what there is to do.")
        return None
    from msgspec import structs

    from openpool.config.runtimes import load_runtimes
    from openpool.worker.offers import RuntimeSettings, WorkerOffers, checked
    from openpool.worker.runtimes.models import default_cache

    loaded = load_runtimes(file)
    entries = [
        RuntimeSettings(**structs.asdict(each.entry), options=each.options, source=each.source)
        for each in loaded.runtimes
    ]
    cache = loaded.file.cache
    return WorkerOffers(
        runtimes=checked(entries),
        cache=default_cache() if cache == Path() else cache,
        vram_budget_mb=loaded.file.vram_budget_mb or None,
    )


async def _serve_ai(door: _Door, offers: "WorkerOffers | None", drain_s: float) -> int:
    from openpool.worker.service import run_worker

    return await run_worker(
        host=door.link.host,
        port=door.link.port,
        pin=door.pin,
        token=door.token,
        sessions=0,
        capabilities=0,
        offers=offers,
        drain_s=drain_s,
    )


async def _work(
    door: _Door,
    sessions: int,
    cpu: bool,
    preset: str,
    drain_s: float,
    offers: "WorkerOffers | None",
) -> int:
    from openpool.worker.gpu import capabilities
    from openpool.worker.service import run_worker

    machine, settings = await _engine(cpu, preset)
    sessions = sessions or _usual_sessions(machine)
    note(
        f"Transcoding on {machine.gpu or plural(machine.cores, 'core')}, at most "
        f"{plural(sessions, 'session')}; "
        "--sessions changes that, --bench measures what is right."
    )
    return await run_worker(
        host=door.link.host,
        port=door.link.port,
        pin=door.pin,
        token=door.token,
        sessions=sessions,
        capabilities=capabilities(machine),
        settings=settings,
        drain_s=drain_s,
        offers=offers,
        status_line=sys.stderr.isatty(),
    )


async def _engine(cpu: bool, preset: str) -> "tuple[Machine, EngineSettings]":
    """What this machine has, and how to use it."""
    from openpool.worker.gpu import find_machine
    from openpool.worker.terms import EngineSettings

    machine = await find_machine()
    if cpu:
        machine = _without_gpu(machine)
    return machine, EngineSettings(preset=preset, device=machine.device)


def _without_gpu(machine: "Machine") -> "Machine":
    from msgspec.structs import replace

    on_cpu = tuple(encoder for encoder in machine.encoders if not encoder.endswith("_nvenc"))
    return replace(machine, gpu="", encoders=on_cpu, decodes_on_gpu=False, gpu_sessions_max=0)


def _usual_sessions(machine: "Machine") -> int:
    """A careful guess: a session of the usual four renditions takes two cores, or four encoders."""
    if machine.device is None:
        return max(1, machine.cores // 2)
    return max(1, machine.gpu_sessions_max // 4)


async def _bench(cpu: bool, preset: str, seconds: float, as_json: bool) -> None:
    from rich.console import Console

    from openpool.demo.media import make_segments
    from openpool.worker import bench

    machine, settings = await _engine(cpu, preset)
    note("Making a clip to measure with.")
    clip = await asyncio.to_thread(
        make_segments,
        bench.SOURCE_WIDTH,
        bench.SOURCE_HEIGHT,
        bench.SOURCE_FPS,
        bench.SOURCE_SECONDS,
        4,
    )
    report = await bench.bench_with_progress(
        Console(stderr=True),
        clip,
        bench.SOURCE_SECONDS * 1000,
        machine,
        settings,
        seconds=seconds,
    )
    if as_json:
        print_json(report)
    else:
        bench.show(report, console())
