"""Which revenue rules there are, and loading one of them.

Built-in rules are named here; those of others are entry points of the group
`openpool.revenue_rules`. `load` imports somebody's code, so the pool itself only calls it in a
process of its own (`rules.child`).
"""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pluggy
from msgspec import Struct

from openpool.core.errors import SetupError
from openpool.rules import ENTRY_POINTS, PROJECT, RuleQuestions

BUILT_IN = {
    "commission-by-group": "openpool.rules.commission_by_group",
    "holdback": "openpool.rules.holdback",
    "performance-bonus": "openpool.rules.performance_bonus",
    "referral": "openpool.rules.referral",
}
TEXT_CHARS_MAX = 300
OPTIONS_MAX = 50


class RuleInfo(Struct, frozen=True, kw_only=True):
    """What identifies a rule, and what it can be told."""

    name: str
    version: str
    hash: str
    """SHA-256 of its source: of its file, or of all Python files of its package."""
    meaning: str
    options: dict[str, str]
    """Name → meaning. `pair.<n>` stands for every name that starts with `pair.`."""
    built_in: bool


class LoadedRule(Struct, frozen=True):
    """A rule in this process."""

    info: RuleInfo
    ask: Callable[..., object]
    """`ask("weights", round, options)`: its answer, or None."""


def names() -> list[str]:
    """All rules that are installed; imports none of them."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def no_such_rule(name: str) -> str:
    """What a person is told who named a rule that is not installed."""
    return f"there is no revenue rule `{name}`; there are: {', '.join(names())}"


def load(name: str) -> LoadedRule:
    """Import a rule. Raises SetupError, and whatever the rule's own code raises."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(RuleQuestions)
    try:
        if name in BUILT_IN:
            manager.register(importlib.import_module(BUILT_IN[name]), name)
        elif not manager.load_setuptools_entrypoints(ENTRY_POINTS, name):
            raise SetupError(no_such_rule(name))
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise SetupError(f"the revenue rule `{name}` is not right: {error}") from None
    if not manager.get_hookcallers(manager.get_plugin(name)):
        raise SetupError(f"the revenue rule `{name}` has no function that is marked with @rule")

    def ask(question: str, *args: object) -> object:
        round, options = args
        answers = getattr(manager.hook, question)(round=round, options=options)
        return answers[0] if answers else None

    return LoadedRule(_info(name, manager.get_plugin(name)), ask)


def _info(name: str, plugin: object) -> RuleInfo:
    module = plugin if isinstance(plugin, ModuleType) else sys.modules[type(plugin).__module__]
    options = getattr(plugin, "OPTIONS", {})
    if not isinstance(options, Mapping) or len(options) > OPTIONS_MAX:
        raise SetupError(f"the revenue rule `{name}` is not right: OPTIONS is {{name: meaning}}")
    lines = (inspect.getdoc(plugin) or "").splitlines()
    return RuleInfo(
        name=name,
        version=_text(getattr(plugin, "VERSION", "0")).translate({43: None, 59: None}),
        hash=_hash(module),
        meaning=_text(" ".join(lines).split(". ")[0]),
        options={_text(key): _text(value) for key, value in options.items()},
        built_in=name in BUILT_IN,
    )


def _text(value: object) -> str:
    return "".join(c for c in str(value)[:TEXT_CHARS_MAX] if c.isprintable())


def _hash(module: ModuleType) -> str:
    file = Path(inspect.getsourcefile(module) or "")
    if not hasattr(module, "__path__"):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for path in sorted(file.parent.rglob("*.py")):
        source = path.read_bytes()
        digest.update(f"{path.relative_to(file.parent).as_posix()} {len(source)}\n".encode())
        digest.update(source)
    return digest.hexdigest()
