"""What an owner may set for a runtime: each option's name, meaning and values.

Options come as texts from the file of runtimes. They are held against this when the worker starts
(`worker.offers`), and read by the runtime itself in its process. Must not look at files.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from msgspec import Struct

from openpool.core.errors import SetupError

Value = TypeVar("Value")


class Option(Struct, Generic[Value], frozen=True):
    """One option. `parse` raises ValueError for a text that is not `allowed`."""

    name: str
    meaning: str
    default: Value
    allowed: str
    parse: Callable[[str], Value]

    def of(self, options: Mapping[str, str]) -> Value:
        """What the options say, or the default. Raises SetupError that names the option."""
        if self.name not in options:
            return self.default
        try:
            return self.parse(options[self.name])
        except ValueError:
            given = options[self.name][:40]
            raise SetupError(
                f"the option `{self.name}` is {given!r}; it must be {self.allowed}"
            ) from None


KnownOptions = Mapping[str, Option[Any] | str]
"""The options that a runtime has. Of one that may be any text, its meaning is enough."""


def text(name: str, meaning: str) -> Option[str]:
    """Any text; empty if left out."""
    return Option(name, meaning, "", "text", str)


def whole(name: str, meaning: str, low: int, high: int, default: int) -> Option[int]:
    """A whole number from low to high."""

    def parse(given: str) -> int:
        if not (given.isascii() and given.isdigit() and low <= int(given) <= high):
            raise ValueError
        return int(given)

    return Option(name, meaning, default, f"a whole number from {low} to {high}", parse)


def number(name: str, meaning: str, low: float, high: float, default: float) -> Option[float]:
    """A number from low to high."""

    def parse(given: str) -> float:
        value = float(given)
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError
        return value

    return Option(name, meaning, default, f"a number from {low:g} to {high:g}", parse)


def choice(name: str, meaning: str, *texts: str, default: str = "") -> Option[str]:
    """One of the texts; the first, if left out and nothing else is said."""

    def parse(given: str) -> str:
        if given not in texts:
            raise ValueError
        return given

    return Option(name, meaning, default or texts[0], f"one of {', '.join(texts)}", parse)


def switch(name: str, meaning: str) -> Option[bool]:
    """On or off; off, if left out."""

    def parse(given: str) -> bool:
        if given not in ("true", "false"):
            raise ValueError
        return given == "true"

    return Option(name, meaning, False, "true or false", parse)


def by_name(*options: Option[Any]) -> dict[str, Option[Any]]:
    """The options as a runtime shows them."""
    return {option.name: option for option in options}
