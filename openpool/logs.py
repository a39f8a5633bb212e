"""Where log lines go: standard error, as text for people or JSON lines for programs.

Called once by each process that logs. Secrets are not filtered here: they must not be logged.
"""

import logging
import sys
from typing import Literal

import structlog


def configure(level: str = "info", form: Literal["auto", "json", "text"] = "auto") -> None:
    """Set up logging. `auto` is text on a terminal and JSON lines anywhere else."""
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if as_text
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # what libraries say is of interest only if it is a warning
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
