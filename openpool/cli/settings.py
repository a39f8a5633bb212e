"""`openpool config …` and `openpool version`: what is set, and is it right?"""

from typing import Annotated

import typer

from openpool.cli.groups import Group
from openpool.cli.options import ConfigFile, Json, Set, examples, load
from openpool.cli.output import print_json, show, show_table

group = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    epilog=examples("openpool config check", "openpool config explain web"),
)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(group, name="config", help="Show, explain and check the settings.")
    app.command(epilog=examples("openpool version", "openpool version --json"))(version)


@group.command("explain", epilog=examples("openpool config explain", "openpool config explain web"))
def explain_settings(
    begins: Annotated[str, typer.Argument(metavar="NAME", help="Only settings like this.")] = "",
    config: ConfigFile = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Show every setting, its value, where it comes from, and what it means."""
    from openpool.config import explain

    settings = [s for s in explain(load(config, assignments)) if s.path.startswith(begins)]
    if as_json:
        print_json(settings)
        return
    show_table(
        ["setting", "value~", "source~", "meaning~"],
        [(s.path, s.value or "—", s.source, s.meaning) for s in settings],
        empty=f"There is no setting whose name begins with `{begins}`.",
    )


@group.command(
    "check", epilog=examples("openpool config check", "openpool config check -c my.yaml")
)
def check_settings(
    config: ConfigFile = None, assignments: Set = None, as_json: Json = False
) -> None:
    """Check that a pool can be served with the settings. Exit code 2 if not."""
    from openpool.config import ConfigError

    try:
        loaded = load(config, assignments, serving=True)
    except ConfigError as error:
        if as_json:
            print_json({"ok": False, "problems": error.problems})
            raise typer.Exit(2) from None
        raise
    file = str(loaded.file) if loaded.file else None
    if as_json:
        print_json({"ok": True, "problems": [], "file": file})
        return
    show(f"The settings are good ({file or 'no file; defaults and environment'}).")


@group.command("reference", epilog=examples("openpool config reference > settings.md"))
def print_reference() -> None:
    """Print the reference of all settings as Markdown."""
    from openpool.config import reference

    typer.echo(reference(), nl=False)


def version(as_json: Json = False) -> None:
    """Print the version."""
    from openpool import __version__

    if as_json:
        print_json({"version": __version__})
    else:
        typer.echo(__version__)
