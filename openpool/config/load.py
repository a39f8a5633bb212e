"""From files, environment and flags to one checked `Config`, with the source of every value.

Precedence: defaults < openpool.yaml < environment < flags. All problems are gathered before
anything is refused, so that a person fixes a file once. The settings are in `config.settings`.
"""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from openpool.config import kinds
from openpool.config.sections import Section, Setting
from openpool.config.settings import Config
from openpool.config.tree import (
    ENV_PREFIX,
    Node,
    env_name,
    merge,
    read_environment,
    read_flags,
    read_yaml,
)
from openpool.core.errors import SetupError
from openpool.core.transcodes import DIRECT
from openpool.rules.catalogue import names, no_such_rule

DEFAULT_FILE = Path("openpool.yaml")
FILE_VARIABLE = "OPENPOOL_CONFIG"
S = TypeVar("S", bound=Section)


class ConfigError(SetupError):
    """The configuration cannot be used; `problems` has one sentence for each reason."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        text = problems[0]
        if len(problems) > 1:
            listed = "".join(f"\n  - {problem}" for problem in problems)
            text = f"The configuration has {len(problems)} problems:{listed}"
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and where each value that is no default came from, by dotted path."""

    config: Config
    sources: dict[str, str]
    file: Path | None = None


def load(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Loaded:
    """Read and check the configuration.

    Without `file`, `$OPENPOOL_CONFIG` or `./openpool.yaml` is read, if there is one. `flags` are
    texts by dotted path. Raises SetupError (ConfigError once all sources could be read).
    """
    environment = os.environ if environment is None else environment
    file = file or _found_file(environment)
    tree = Node({}, "the defaults") if file is None else read_yaml(file)
    for layer in (read_environment(environment), read_flags(flags or {})):
        tree = merge(tree, layer)
    reading = _Reading()
    values = reading.section(Config, tree, "")
    if reading.problems:
        raise ConfigError(reading.problems)
    config = Config(**values)
    if problems := _contradictions(config):
        raise ConfigError(problems)
    return Loaded(config, reading.sources, file)


def load_for_serving(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Loaded:
    """Like `load`, and also refuses what a pool cannot be served with."""
    loaded = load(file, environment=environment, flags=flags)
    if problems := unservable(loaded.config):
        raise ConfigError(problems)
    return loaded


def read_section(kind: type[S], tree: Node) -> S:
    """A section with all that is in it, from a tree of its own. Raises ConfigError."""
    reading = _Reading()
    values = reading.section(kind, tree, "")
    if reading.problems:
        raise ConfigError(reading.problems)
    return kind(**values)


def unservable(config: Config) -> list[str]:
    """What is missing for serving, one sentence each."""
    problems = []
    if not config.orchestrators and not (config.ai.enabled and config.ai.prices):
        problems.append(
            "No orchestrator is set, so there is no work; set `orchestrators` in openpool.yaml, or "
            f"{ENV_PREFIX}ORCHESTRATOR_ADDRESS and {ENV_PREFIX}ORCHESTRATOR_SECRET "
            "(a pool for customers of its own needs `ai.prices` instead)."
        )
    for path, name in ((config.pool.terms, "pool.terms"), (config.web.tls.cert, "web.tls.cert")):
        if path != Path() and not path.is_file():
            problems.append(f"{name} is {path}, but there is no such file.")
    installed = names()
    for i, hook in enumerate(config.revenue.hooks):
        if hook.rule not in installed:
            problems.append(f"revenue.hooks[{i}]: {no_such_rule(hook.rule)}.")
    return problems


def _found_file(environment: Mapping[str, str]) -> Path | None:
    if named := environment.get(FILE_VARIABLE):
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _contradictions(config: Config) -> list[str]:
    problems = []
    names = [orchestrator.name for orchestrator in config.orchestrators]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"Two orchestrators are called `{name}`; give each its own `name`.")
    if DIRECT in names:
        problems.append(
            f"An orchestrator is called `{DIRECT}`, which stands for the pool's own API; "
            "give it another `name`."
        )
    for i, orchestrator in enumerate(config.orchestrators):
        if config.price.source != "config" and not orchestrator.status_url:
            problems.append(
                f"price.source is {config.price.source}, but orchestrators[{i}].status_url is not "
                "set; set it to the orchestrator's -cliAddr, like http://127.0.0.1:7935."
            )
    fed = config.chain.endpoints and config.chain.price_feed
    for i, row in enumerate(config.ai.prices):
        if row.price.currency == "USD" and not config.ai.usd_per_eth and not fed:
            problems.append(
                f"ai.prices[{i}].price is in USD, but ai.usd_per_eth is not set; "
                "set what one ETH is worth, or chain.endpoints, or give the price in wei."
            )
    if (config.web.tls.cert == Path()) != (config.web.tls.key == Path()):
        problems.append("web.tls needs both `cert` and `key`, or neither.")
    if config.lpt.swap and not config.lpt.pool:
        problems.append("lpt.swap needs lpt.pool: the market where LPT is bought.")
    if config.web.listen.port == config.workers.listen.port != 0:
        problems.append(
            f"web.listen and workers.listen both use port {config.web.listen.port}; "
            "give each its own."
        )
    return problems


def annotations(section: type[Section]) -> dict[str, Any]:
    """The fields of a section with their annotated types."""
    return get_type_hints(section, include_extras=True)


def setting_of(annotation: object) -> Setting | None:
    """The `Setting` of a field, or None where the field is a section or some of them."""
    if get_origin(annotation) is not Annotated:
        return None
    return next(extra for extra in get_args(annotation) if isinstance(extra, Setting))


@dataclass(slots=True)
class _Reading:
    """Turns a tree into values, noting problems and sources by the way."""

    problems: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    def section(self, kind: type[Section], node: Node, path: str) -> dict[str, Any]:
        """The values that a tree gives for the fields of a section."""
        if node.value is None:
            return {}
        if not isinstance(node.value, dict):
            self._refuse(node, path, "a group of settings")
            return {}
        fields = annotations(kind)
        values = {}
        for name, inner in node.value.items():
            if name not in fields:
                self._unknown(name, inner, path, list(fields))
            elif inner.value not in (None, ""):
                values[name] = self._field(fields[name], inner, f"{path}.{name}".lstrip("."))
        for required in msgspec.structs.fields(kind):
            if required.required and required.name not in values:
                self._missing(node, f"{path}.{required.name}", fields[required.name])
        return values

    def _field(self, annotation: object, node: Node, path: str) -> Any:
        setting = setting_of(annotation)
        if setting is not None:
            return self._leaf(setting, node, path)
        if isinstance(annotation, type) and issubclass(annotation, Section):
            return self._built(annotation, node, path)
        inner = get_args(annotation)
        if get_origin(annotation) is dict:
            return self._mapping(inner[1], node, path)
        return self._list(inner[0], node, path)

    def _built(self, kind: type[Section], node: Node, path: str) -> Section | None:
        before = len(self.problems)
        values = self.section(kind, node, path)
        return kind(**values) if len(self.problems) == before else None

    def _mapping(self, kind: type[Section], node: Node, path: str) -> dict[str, Section | None]:
        if not isinstance(node.value, dict):
            self._refuse(node, path, "a group of settings for each name")
            return {}
        for name, inner in node.value.items():
            try:
                kinds.NAME.parse(name, inner.base)
            except ValueError:
                self._say(inner, f"{path} has an entry `{name}`; use {kinds.NAME.allowed}.")
        return {
            name: self._built(kind, inner, f"{path}.{name}") for name, inner in node.value.items()
        }

    def _list(self, kind: type[Section], node: Node, path: str) -> tuple[Section | None, ...]:
        items = node.value
        if isinstance(items, dict):  # numbered, from the environment or flags
            if sorted(items) != sorted(str(i) for i in range(len(items))):
                self._refuse(node, path, "a list; entries are numbered from 0 without a gap")
                return ()
            items = [items[str(i)] for i in range(len(items))]
        if not isinstance(items, list):
            self._refuse(node, path, "a list")
            return ()
        return tuple(self._built(kind, item, f"{path}[{i}]") for i, item in enumerate(items))

    def _leaf(self, setting: Setting, node: Node, path: str) -> Any:
        self.sources[path] = node.source
        if not isinstance(node.value, str):
            self._refuse(node, path, setting.kind.allowed)
            return None
        try:
            return setting.kind.parse(node.value.strip(), node.base)
        except SetupError as error:
            self._say(node, f"{path}: {error}")
        except ValueError:
            self._refuse(node, path, setting.kind.allowed, hidden=setting.kind.secret)
        return None

    # --- sentences -----------------------------------------------------------------------------

    def _say(self, node: Node, sentence: str) -> None:
        self.problems.append(f"{node.source}: {sentence}")

    def _refuse(self, node: Node, path: str, allowed: str, *, hidden: bool = False) -> None:
        given = f"`{node.value[:60]}`" if isinstance(node.value, str) else node.what
        given = "not usable" if hidden else given
        self._say(node, f"{path or 'the configuration'} is {given}; it must be {allowed}.")

    def _missing(self, node: Node, path: str, annotation: object) -> None:
        setting = setting_of(annotation)
        allowed = setting.kind.allowed if setting else ""
        self._say(node, f"{path} is not set; it must be {allowed}.")

    def _unknown(self, name: str, node: Node, path: str, known: list[str]) -> None:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        full = f"{path}.{name}".lstrip(".")
        hint = f"known here are: {', '.join(known)}"
        if near:
            meant = f"{path}.{near[0]}".lstrip(".")
            from_environment = node.source.startswith(ENV_PREFIX)
            hint = f"did you mean `{env_name(meant) if from_environment else meant}`?"
        self._say(node, f"there is no setting `{full}`; {hint}")
