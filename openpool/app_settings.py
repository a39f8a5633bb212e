"""The part of the composition root that turns settings into what core and checking need.

Used by `openpool.app` only.
"""

import os
from pathlib import Path

from openpool.config import Config
from openpool.core.errors import SetupError
from openpool.core.settings import PoolSettings
from openpool.pool.verify import Verifier
from openpool.treasury.terms import PublishedTerms

DEFAULT_TERMS = """\
Work is paid by the pixel, as measured by the pool, at the price recorded with each fee, less the
commission shown here. A result that is not what was asked for earns nothing. You process other
people's video: do not keep, copy or pass on any of it.
"""


def make_verifier(config: Config, secret: bytes) -> Verifier:
    """Who opens results."""
    return Verifier(
        config.verify.processes or max(1, (os.cpu_count() or 2) // 2),
        secret=secret,
        sample_ppm=config.verify.sample if config.verify.level == "frames" else 0,
        limit_s=config.verify.timeout_ms / 1000,
    )


def terms_text(path: Path) -> str:
    """What owners accept when they enrol. Raises SetupError."""
    if path == Path():
        return DEFAULT_TERMS
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"pool.terms: cannot read {path}: {error}") from None


def core_settings(config: Config, terms: PublishedTerms) -> PoolSettings:
    """What the core is told. Whatever concerns money is as the terms in force say."""
    dispatch = config.dispatch
    return PoolSettings(
        answer_margin_ms=dispatch.answer_margin_ms,
        target_ppm=dispatch.target,
        hedge=dispatch.hedge,
        hedge_ppm=dispatch.hedge_share,
        headroom_ppm=dispatch.headroom,
        slots_per_group=dispatch.slots_per_group,
        attempts_max=dispatch.attempts_max,
        queue_max=dispatch.queue_max,
        cooldown_failures=dispatch.cooldown_failures,
        cooldown_ms=dispatch.cooldown_ms,
        session_idle_ms=dispatch.session_idle_ms,
        commission_ppm=terms.commission_ppm(""),
        scheme=terms.in_force().terms.promise.scheme,
    )
