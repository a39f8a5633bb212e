"""Options that several commands share, and how they become a configuration."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from openpool.core.errors import BadMessage, SetupError
from openpool.web import LIST_MAX

if TYPE_CHECKING:
    from openpool.config import Loaded

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Settings; else ./openpool.yaml."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change one setting; may be repeated."),
]
Url = Annotated[
    str,
    typer.Option("--url", metavar="URL", help="The pool's web address; else from the settings."),
]
Limit = Annotated[
    int, typer.Option("--limit", "-n", metavar="N", min=1, max=LIST_MAX, help="How many at most.")
]


def examples(*lines: str) -> str:
    """The epilog of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def options(kind: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a command whose first parameter is a `kind`: its fields become options."""
    shared = list(inspect.signature(kind).parameters.values())

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())[1:]
        named = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*own, *shared]]

        def command(**given: Any) -> None:
            function(kind(**{p.name: given.pop(p.name) for p in shared}), **given)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]  # typer reads it
        command.__annotations__ = {p.name: p.annotation for p in named}
        return command

    return decorate


def typed(parse: Callable[[str], T], text: str) -> T:
    """What somebody typed, understood. Raises SetupError for what cannot be."""
    try:
        return parse(text)
    except BadMessage as error:
        raise SetupError(str(error)) from None


def load(file: Path | None, assignments: list[str] | None, *, serving: bool = False) -> "Loaded":
    """The configuration for a command. Raises SetupError."""
    from openpool.config import load as load_any
    from openpool.config import load_for_serving

    flags = dict(_assignment(text) for text in assignments or [])
    return (load_for_serving if serving else load_any)(file, flags=flags)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SetupError(f"--set {text}: write it as NAME=VALUE, like --set commission=20%.")
    return name.strip(), value
