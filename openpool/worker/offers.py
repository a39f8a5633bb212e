"""What a worker is to run besides transcoding: values, and the check that they make sense.

The owner writes them in a YAML file (`openpool worker --runtimes FILE`, docs/how-to/add-a-runtime);
`config.runtimes` reads it, and this module holds what it says against the catalogue.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from openpool.core.errors import SetupError
from openpool.worker.runtimes import catalogue
from openpool.worker.runtimes.options import KnownOptions, Option

MODEL_CHARS_MAX = 200


class RuntimeSettings(Struct, frozen=True, kw_only=True):
    """One entry of the file."""

    runtime: str
    """A name of the catalogue, or `module:Class` of the owner's own."""
    model: str = ""
    """What it is offered as; empty: the catalogue's own."""
    pipeline: str = ""
    """Of an `http` runtime only; the others know theirs."""
    processes: int = 1
    """How many, each with the model in memory."""
    parallel: int = 1
    """Requests that one process serves at once, if its runtime can."""
    sessions: int = 4
    """Long sessions that one process serves at once, and calls that an `http` server does."""
    time_limit_s: float = 300.0
    """For one request; then its process is killed."""
    request_mb: int = 64
    memory_mb: int = 16_384
    """A process that takes more is killed."""
    vram_mb: int = 0
    """Graphics memory that it will take, as far as its owner knows."""
    options: Mapping[str, str] = {}
    source: str = ""
    """Where it is written, for messages."""


class WorkerOffers(Struct, frozen=True, kw_only=True):
    """The whole file."""

    runtimes: tuple[RuntimeSettings, ...]
    cache: Path
    vram_budget_mb: int | None = None
    """Graphics memory for all together; None: no limit."""


def checked(runtimes: Iterable[RuntimeSettings]) -> tuple[RuntimeSettings, ...]:
    """The entries with what they left out. Raises SetupError that names all that is wrong."""
    done: list[RuntimeSettings] = []
    problems: list[str] = []
    for entry in runtimes:
        try:
            done.append(_checked(entry, done))
        except SetupError as error:
            problems.append(f"{entry.source}: {error}")
    if problems:
        raise SetupError("\n".join(problems))
    return tuple(done)


def _checked(entry: RuntimeSettings, before: list[RuntimeSettings]) -> RuntimeSettings:
    check = _checked_http if entry.runtime == catalogue.HTTP else _checked_embedded
    full = check(entry)
    if not full.model.isprintable() or len(full.model) > MODEL_CHARS_MAX:
        raise SetupError(f"`model` must be at most {MODEL_CHARS_MAX} printable characters")
    for other in before:
        if (other.pipeline, other.model) == (full.pipeline, full.model):
            raise SetupError(
                f"{full.pipeline}/{full.model} is offered twice (see {other.source}); set "
                "`processes` for more of the same, or another `model`"
            )
    return full


def _checked_embedded(entry: RuntimeSettings) -> RuntimeSettings:
    kind = catalogue.runtime_class(entry.runtime)
    if entry.pipeline not in ("", kind.pipeline):
        raise SetupError(
            f"the runtime {entry.runtime} serves the pipeline {kind.pipeline}; leave `pipeline` out"
        )
    if missing := kind.missing():
        raise SetupError(missing)
    if entry.parallel > 1 and not kind.concurrent:
        raise SetupError(
            f"a process of {entry.runtime} serves one request at a time: set `processes`, not "
            "`parallel`"
        )
    if kind.known_options is not None:
        _check_options(entry, kind.known_options)
    model = entry.model or catalogue.default_model(entry.runtime)
    if not model:
        raise SetupError(f"the runtime {entry.runtime} needs a `model`")
    return _replaced(entry, kind.pipeline, model)


def _checked_http(entry: RuntimeSettings) -> RuntimeSettings:
    from openpool.worker.runtimes.http import OPTIONS, ProxySettings

    if entry.parallel > 1:
        raise SetupError("an http runtime takes `sessions` requests at once; leave `parallel` out")
    if not entry.pipeline or not entry.model:
        raise SetupError("an http runtime needs `pipeline` and `model`, as they are to be offered")
    _check_options(entry, OPTIONS)
    ProxySettings.from_options(entry.options)
    return entry


def _check_options(entry: RuntimeSettings, known: KnownOptions) -> None:
    for name in entry.options:
        if name in known:
            option = known[name]
            if isinstance(option, Option):
                option.of(entry.options)
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"it has: {', '.join(known) or 'none'}"
        raise SetupError(f"the runtime {entry.runtime} has no option `{name}`; {hint}")


def _replaced(entry: RuntimeSettings, pipeline: str, model: str) -> RuntimeSettings:
    return replace(entry, pipeline=pipeline, model=model)
