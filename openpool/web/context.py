"""What every route of the web shares, made once by `web.app`."""

from dataclasses import dataclass

from litestar.di import NamedDependency

from openpool.core.errors import NotAllowed
from openpool.web.auth import Visitor
from openpool.web.call_views import CallViews
from openpool.web.door import Door, need_sign_in
from openpool.web.feed import Feed
from openpool.web.interface import Deps
from openpool.web.metrics import Metrics
from openpool.web.problems import NotFound
from openpool.web.views import Views


@dataclass(frozen=True, slots=True)
class Web:
    """Handed to routes as the dependency `web`."""

    deps: Deps
    views: Views
    calls: CallViews
    feed: Feed
    door: Door
    metrics: Metrics


FromWeb = NamedDependency[Web]
FromVisitor = NamedDependency[Visitor]
"""How a route asks for the two things that every route may have."""


def seen_worker(visitor: Visitor, worker: str) -> str:
    """The worker that a question is about: the one named, or the visitor's only one.

    "" means all workers, which only the operator may ask for. A worker that the visitor may not
    see is `NotFound`, so that nobody learns which workers exist.
    """
    need_sign_in(visitor)
    if not worker and visitor.role == "worker":
        if len(visitor.workers) != 1:
            raise NotAllowed("Say which of your workers you mean: add `worker=` with its id.")
        return visitor.workers[0]
    if worker and not visitor.may_see(worker):
        raise NotFound("There is no such worker, or it is not yours.")
    return worker
