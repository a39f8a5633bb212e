"""The file in which a worker's owner says what to run besides transcoding.

`openpool worker --runtimes FILE`. Only the file's form is checked here, with the line of what is
wrong; whether there are such runtimes is known to `worker.offers`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from openpool.config import kinds
from openpool.config.kinds import Kind
from openpool.config.load import ConfigError, read_section
from openpool.config.sections import Section, Setting
from openpool.config.tree import Node, read_yaml
from openpool.core.errors import SetupError

TEXT = Kind("at most 200 printable characters", lambda text, _: _text(text))
OPTION_CHARS_MAX = 4096


class RuntimeEntry(Section, frozen=True, kw_only=True):
    """One runtime."""

    runtime: Annotated[
        str, Setting(TEXT, "A name that `openpool worker models list` shows, or `module:Class`")
    ]
    model: Annotated[str, Setting(TEXT, "What it is offered as; empty: the runtime's own name")] = (
        ""
    )
    pipeline: Annotated[str, Setting(TEXT, "Of a runtime `http`; the others know theirs")] = ""
    processes: Annotated[
        int, Setting(kinds.integer(1, 64), "Processes, each with the model in memory")
    ] = 1
    parallel: Annotated[
        int, Setting(kinds.integer(1, 256), "Requests that one process serves at once")
    ] = 1
    sessions: Annotated[
        int,
        Setting(
            kinds.integer(1, 1024), "Sessions at once in a process, or calls to an http server"
        ),
    ] = 4
    time_limit_s: Annotated[
        int, Setting(kinds.integer(1, 86_400), "How long a request may take")
    ] = 300
    request_mb: Annotated[int, Setting(kinds.integer(1, 1024), "The largest request")] = 64
    memory_mb: Annotated[
        int, Setting(kinds.integer(64, 1_048_576), "A process that takes more is killed")
    ] = 16_384
    vram_mb: Annotated[
        int, Setting(kinds.integer(0, 1_048_576), "Graphics memory that a process will take")
    ] = 0


class RuntimesFile(Section, frozen=True, kw_only=True):
    """The whole file."""

    runtimes: tuple[RuntimeEntry, ...]
    cache: Annotated[Path, Setting(kinds.PATH, "Where models are kept")] = Path()
    vram_budget_mb: Annotated[
        int, Setting(kinds.integer(0, 10_000_000), "Graphics memory for all; 0: no limit")
    ] = 0


@dataclass(frozen=True, slots=True)
class LoadedRuntime:
    """An entry with its options and its place in the file."""

    entry: RuntimeEntry
    options: Mapping[str, str]
    source: str


@dataclass(frozen=True, slots=True)
class LoadedRuntimes:
    """The file as it was understood."""

    file: RuntimesFile
    runtimes: tuple[LoadedRuntime, ...]


def load_runtimes(path: Path) -> LoadedRuntimes:
    """Read the file. Raises SetupError that says what is wrong and in which line."""
    tree = read_yaml(path)
    items = _items(tree)
    problems: list[str] = []
    options = [_take_options(item, problems) for item in items]
    try:
        file = read_section(RuntimesFile, tree)
    except ConfigError as error:
        raise ConfigError([*error.problems, *problems]) from None
    if problems:
        raise ConfigError(problems)
    loaded = zip(file.runtimes, options, items, strict=True)
    return LoadedRuntimes(
        file, tuple(LoadedRuntime(entry, own, item.source) for entry, own, item in loaded)
    )


def _items(tree: Node) -> list[Node]:
    """The entries. Raises SetupError if there are none."""
    listed = tree.value.get("runtimes") if isinstance(tree.value, dict) else None
    if listed is None or not isinstance(listed.value, list) or not listed.value:
        raise SetupError(f"{tree.source}: it must have a list `runtimes` of at least one runtime.")
    return listed.value


def _take_options(item: Node, problems: list[str]) -> dict[str, str]:
    """Cut the free part out of an entry: only the runtime knows what may stand there."""
    if not isinstance(item.value, dict) or "options" not in item.value:
        return {}
    node = item.value.pop("options")
    if not isinstance(node.value, dict):
        problems.append(f"{node.source}: `options` is {node.what}; it must be names with texts.")
        return {}
    options = {}
    for name, inner in node.value.items():
        if not isinstance(inner.value, str) or len(inner.value) > OPTION_CHARS_MAX:
            problems.append(
                f"{inner.source}: the option `{name}` is {inner.what}; it must be text."
            )
        else:
            options[name] = inner.value.strip()
    return options


def _text(text: str) -> str:
    if not text.isprintable() or len(text) > 200:
        raise ValueError
    return text
