"""Groups of commands: how their help looks, and the command that is meant where none is named."""

from collections.abc import Iterable

import typer
import typer.core

WHOLE_SENTENCE = 200
"""Characters of a command's first sentence that a list shows; it is wrapped, not cut."""


class Group(typer.core.TyperGroup):
    """Commands that belong together, listed with whole sentences."""

    default = ""
    """The command that is meant if none is named; empty is none."""

    # the framework hands in its own subclass of what it declares
    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put the default command in front of words that name none."""
        if self.default and (not args or args[0] not in self._own_words()):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def _own_words(self) -> tuple[str, ...]:
        return (*self.commands, "--help", "-h")

    def sections(self) -> Iterable[tuple[str, Iterable[str]]]:
        """Headings, and the names of the commands below them."""
        return [("Commands", self.commands)]

    # see `parse_args`
    def format_commands(self, ctx: typer.Context, formatter) -> None:  # type: ignore[no-untyped-def,override]
        """Write the lists of commands."""
        for heading, names in self.sections():
            lines = [
                (name, self.commands[name].get_short_help_str(WHOLE_SENTENCE)) for name in names
            ]
            with formatter.section(heading):
                formatter.write_dl(lines)


class Ledger(Group):
    """`openpool ledger` and `openpool ledger ACCOUNT` show the books."""

    default = "show"


class Worker(Group):
    """`openpool worker` works, and its help is that of working; its commands stand in there."""

    default = "run"

    def _own_words(self) -> tuple[str, ...]:
        return tuple(self.commands)


class Root(Group):
    """The commands of `openpool`, by what somebody wants."""

    def sections(self) -> Iterable[tuple[str, Iterable[str]]]:
        """Headings, and the names of the commands below them."""
        return SECTIONS.items()


SECTIONS = {
    "Begin": ("demo", "serve", "worker", "enroll"),
    "Members": ("invite", "approve", "ban", "tokens", "customers"),
    "What happens": ("status", "workers", "events"),
    "Books and proofs": ("ledger", "replay", "statements", "verify", "dispute"),
    "Money": ("chain", "wallet", "revenue", "rules", "payouts", "delegator"),
    "Settings": ("config", "version"),
}
