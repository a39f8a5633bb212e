"""The page for delegators, open to everybody: what the orchestrator keeps and shares, what it
earned, what one's own stake would earn, and staking with the browser's wallet.

All figures are made here; the page's script only asks the wallet to sign what the server built.
"""

from typing import Annotated

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from litestar.response import Template

from openpool.core.errors import BadMessage
from openpool.core.livepeer.amounts import amount
from openpool.core.livepeer.delegation import Profile
from openpool.core.livepeer.delegators import PastRound, reward_calls_ppm
from openpool.web.bars import Row, stacked
from openpool.web.context import FromVisitor, FromWeb
from openpool.web.delegation import Estimates, estimates
from openpool.web.format import ether_text, lpt_about
from openpool.web.problems import Asked
from openpool.web.show import show

EXAMPLE = "1000"
"""LPT that the calculator starts with."""
Text = Annotated[str, QueryParameter(max_length=42)]


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
        bars=stacked([_row(past) for past in profile.past]) if profile else None,
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


def _row(past: PastRound) -> Row:
    """A round in the chart: what all stake got below, what the orchestrator kept above."""
    fees = f"fees {ether_text(past.fees_wei)}"
    name = str(past.number)
    if not past.rewarded:
        about = f"Round {name}: reward was not called; {fees}"
        return Row(name=name, about=about, amounts=())
    reward, shared = (lpt_about(each) for each in (past.reward_lpt, past.delegators_lpt))
    about = f"Round {name}: {reward} LPT, of which {shared} LPT to all stake; {fees}"
    kept_lpt = past.reward_lpt - past.delegators_lpt
    return Row(
        name=name, about=about, amounts=(("shared", past.delegators_lpt), ("kept", kept_lpt))
    )


DELEGATOR_PAGES: list[HTTPRouteHandler] = [delegators_page]
