"""How a command asks the running pool: the options that all such commands have, as one value.

A command takes `Asked` (as the operator), `Spoken` (as the operator or as a worker of this machine)
or `Booked` (the books, which can also be read while the pool is off). Must not print an answer but
as JSON.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from openpool.cli.options import ConfigFile, Json, Set, Url, load, options
from openpool.cli.output import note, print_json
from openpool.core.errors import SetupError

if TYPE_CHECKING:
    from openpool.cli.api import Api
    from openpool.config import Config
    from openpool.identity import Identity

T = TypeVar("T")

Offline = Annotated[
    bool, typer.Option("--offline", help="Read the data folder, also while the pool runs.")
]
Pool = Annotated[
    str,
    typer.Option("--pool", metavar="HOST:PORT", help="Speak as the worker enrolled from here."),
]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question to the operator's own pool."""

    config: ConfigFile = None
    assignments: Set = None
    url: Url = ""
    as_json: Json = False

    @property
    def settings(self) -> "Config":
        """The settings that the options name. Raises SetupError."""
        return load(self.config, self.assignments).config

    def api(self) -> "Api":
        """The pool's API, with the credential of whoever asks. Raises SetupError."""
        return self._as_operator()

    def ask(self, question: "Callable[[Api], Coroutine[object, object, T]]") -> T:
        """What the pool answers. Raises OpenPoolError."""

        async def ask() -> T:
            async with self.api() as api:
                return await question(api)

        return asyncio.run(ask())

    def show(self, found: T, tell: Callable[[T], None]) -> None:
        """Print an answer as JSON, or have it told to a person."""
        if self.as_json:
            print_json(found)
        else:
            tell(found)

    def done(self, sentence: str) -> None:
        """Say that it is done, where the pool answers no more than that."""
        if self.as_json:
            print_json({"ok": True})
        else:
            typer.echo(sentence)

    def _as_operator(self) -> "Api":
        from openpool.cli.api import operator_api

        return operator_api(self.settings, self.url)


@dataclass(frozen=True, kw_only=True)
class Spoken(Asked):
    """A question that an owner may ask, too, with the token that enrolling left on this machine."""

    pool: Pool = ""

    @property
    def identity(self) -> "Identity | None":
        """The worker that speaks; None where the operator does. Raises SetupError."""
        if not self.pool:
            return None
        from openpool.identity import load_identity

        identity = load_identity(self.pool)
        if identity is None:
            raise SetupError(
                f"This machine is not enrolled at {self.pool}; `openpool enroll` does that."
            )
        return identity

    def api(self) -> "Api":
        """The pool's API, as that worker or as the operator. Raises SetupError."""
        identity = self.identity
        if identity is None:
            return self._as_operator()
        from openpool.cli.enrolling import worker_api

        return worker_api(identity, self.url)


@dataclass(frozen=True, kw_only=True)
class Booked(Asked):
    """A question that the data folder can answer, too."""

    offline: Offline = False

    def ask_or_read(
        self,
        question: "Callable[[Api], Coroutine[object, object, T]]",
        read: "Callable[[Config], T]",
    ) -> T:
        """What the pool answers; if it is off, or with --offline, what its data folder says."""
        from openpool.cli.api import NotRunning

        if not self.offline:
            try:
                return self.ask(question)
            except NotRunning:
                if self.url:
                    raise
                note("The pool is not running; this is what its data folder says.")
        return read(self.settings)


as_operator = options(Asked)
as_anyone = options(Spoken)
on_books = options(Booked)
