"""The tokenizers that the operator has named for models: how answers are recounted.

The counting itself is in `pool.tokens`, in the checker processes: it costs the event loop nothing,
and a text on which it crashes or hangs costs that text only. Read next: `pool.answers.chat`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from openpool.core.errors import SetupError
from openpool.pool.checkers import CheckerHung, CheckerLost, Checkers
from openpool.pool.findings import Answer, Counted, CountTokens, Fault

TEXT_BYTES_MAX = 4_000_000
"""More is not recounted."""
START_S = 60.0
ANY = ""
"""Stands for every model that has no tokenizer of its own."""

log = structlog.get_logger()


class Tokenizers:
    """Counts tokens; a `pool.answers.nouns.TokenCounter`."""

    def __init__(self, checkers: Checkers, files: Mapping[str, Path], limit_s: float) -> None:
        """`files` by model, or for `ANY`; `limit_s` bounds one count."""
        self._checkers = checkers
        self._files = dict(files)
        self._limit_s = limit_s

    async def start(self) -> None:
        """Try every tokenizer once. Raises SetupError with what is wrong with one."""
        for model, file in self._files.items():
            try:
                found = await self._ask(file, msgspec.msgpack.encode(["a"]), False, START_S)
            except (CheckerLost, CheckerHung):
                found = Fault("crashes or blocks what reads it")
            if isinstance(found, Fault):
                which = f"the tokenizer of {model or 'all models'}"
                raise SetupError(f"ai.tokenizers: {file}, {which}, {found.text}.")

    async def __call__(
        self, model: str, texts: Sequence[str], *, marks: bool = False
    ) -> Sequence[int] | None:
        """Tokens of each text; None if the model's tokenizer is not known, or fails."""
        file = self._files.get(model) or self._files.get(ANY)
        if file is None:
            return None
        data = msgspec.msgpack.encode(texts)
        if len(data) > TEXT_BYTES_MAX:
            return None
        try:
            found = await self._ask(file, data, marks, self._limit_s)
        except (CheckerLost, CheckerHung):
            log.warning("tokens-not-counted", model=model, bytes=len(data))
            return None
        return found.tokens if isinstance(found, Counted) else None

    async def _ask(self, file: Path, data: bytes, marks: bool, limit_s: float) -> Answer:
        return await self._checkers.ask(CountTokens(str(file), marks), data, limit_s)
