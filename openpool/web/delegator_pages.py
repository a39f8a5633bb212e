"""The page for delegators, open to everybody: what the orchestrator keeps and shares, what it
earned, what one's own stake would earn, and staking with the browser's wallet.

All figures are made here; the page's script only asks the wallet to sign what the server built.
"""

from typing import Annotated

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from litestar.response import Template
from msgspec import Struct

from openpool.core.errors import BadMessage
from openpool.core.livepeer.amounts import amount
from openpool.core.livepeer.delegation import Profile
from openpool.core.livepeer.delegators import PastRound, reward_calls_ppm
from openpool.web.context import FromVisitor, FromWeb
from openpool.web.delegation import Estimates, estimates
from openpool.web.problems import Asked
from openpool.web.show import show

EXAMPLE = "1000"
"""LPT that the calculator starts with."""
CHART_WIDTH = 720
CHART_HEIGHT = 150
GAP = 3
BARS_MIN = 20
"""Fewer rounds than this leave room on the left."""

Text = Annotated[str, QueryParameter(max_length=42)]


class Bar(Struct, frozen=True, kw_only=True):
    """A round in the chart: its reward, the delegators' part of it below."""

    past: PastRound
    x: int
    width: int
    top: int
    height: int
    share_top: int
    share_height: int


@get("/delegators", include_in_schema=False)
async def delegators_page(
    request: Asked,
    web: FromWeb,
    visitor: FromVisitor,
    orchestrator: Text = "",
    stake: Text = "",
) -> Template:
    """What there is to know before delegating to this pool."""
    known = web.deps.delegation
    profiles = list(known.profiles()) if known else []
    chosen = next((p for p in profiles if p.address == orchestrator), None)
    profile = chosen or (profiles[0] if profiles else None)
    told, wrong = _told(profile, stake or EXAMPLE)
    return show(
        request,
        web,
        visitor,
        "delegators",
        "Delegators",
        enabled=known is not None,
        problem=known.problem if known else "",
        profiles=profiles,
        profile=profile,
        calls_ppm=reward_calls_ppm(profile.past) if profile else None,
        bars=bars(profile.past) if profile else [],
        chart=(CHART_WIDTH, CHART_HEIGHT),
        highest_lpt=max((p.reward_lpt for p in profile.past), default=0) if profile else 0,
        stake=stake or EXAMPLE,
        told=told,
        wrong=wrong,
    )


def _told(profile: Profile | None, stake: str) -> tuple[Estimates | None, str]:
    """What the calculator answers, or what is wrong with the question."""
    if profile is None:
        return None, ""
    try:
        return estimates(profile, amount(stake)), ""
    except BadMessage as error:
        return None, str(error)


def bars(past: tuple[PastRound, ...]) -> list[Bar]:
    """The chart of rewards, the oldest round on the left."""
    top = max((each.reward_lpt for each in past), default=0) or 1
    slot = CHART_WIDTH // max(len(past), BARS_MIN)
    drawn = []
    for i, each in enumerate(past):
        height = each.reward_lpt * (CHART_HEIGHT - 4) // top
        share = each.delegators_lpt * (CHART_HEIGHT - 4) // top
        drawn.append(
            Bar(
                past=each,
                x=CHART_WIDTH - slot * (len(past) - i),
                width=slot - GAP,
                top=CHART_HEIGHT - height,
                height=height - share,
                share_top=CHART_HEIGHT - share,
                share_height=share,
            )
        )
    return drawn


DELEGATOR_PAGES: list[HTTPRouteHandler] = [delegators_page]
