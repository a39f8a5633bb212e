"""The orchestrators: which incarnation each one is, and the slot groups registered with it.

An orchestrator makes a new certificate at every start and counts its tasks from zero again, so the
certificate's fingerprint is its *incarnation*. One that was replaced never comes back: facts about
it are old. Must not know what a job is. Read next: `core.groups`, the plan carried out here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from openpool.core.events import (
    GroupClosed,
    GroupOpened,
    OrchestratorDown,
    OrchestratorRestarted,
    OrchestratorUp,
)
from openpool.core.facts import GroupDown, GroupUp, OrchestratorLost
from openpool.core.groups import LiveGroup, Offer, plan_groups, reconcile
from openpool.core.instructions import CloseGroup, OpenGroup
from openpool.core.roster import Roster
from openpool.core.settings import PoolSettings
from openpool.core.step import Outbox, Timer, Timers

RETIRED_MAX = 32
"""Former incarnations remembered per orchestrator."""


@dataclass(slots=True, eq=False)
class Group:
    """A slot group that was asked for."""

    live: LiveGroup
    up: bool = False
    ups: int = 0
    """How often it was registered."""


@dataclass(slots=True, eq=False)
class Orchestrator:
    """One orchestrator."""

    name: str
    weight: int
    incarnation: str = ""
    """Empty until it is seen."""
    up: bool = False
    retired: dict[str, None] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    closing: dict[str, Group] = field(default_factory=dict)
    jobs: dict[str, None] = field(default_factory=dict)
    """Ids of its jobs that are not over."""
    received: int = 0
    delivered: int = 0
    failed: int = 0
    problem: str = ""


class Orchestrators:
    """Keeps the orchestrators and their slot groups."""

    def __init__(
        self,
        weights: Mapping[str, int],
        settings: PoolSettings,
        out: Outbox,
        timers: Timers,
        roster: Roster,
    ) -> None:
        self.all = {name: Orchestrator(name, weight) for name, weight in weights.items()}
        self.settings = settings
        self.out = out
        self.timers = timers
        self.roster = roster
        self._due: Timer | None = None

    def get(self, name: str) -> Orchestrator:
        """The orchestrator of that name; one that nobody configured is offered nothing."""
        if name not in self.all:
            self.all[name] = Orchestrator(name, 0)
        return self.all[name]

    # --- incarnations -----------------------------------------------------------------------------
    def seen(self, name: str, incarnation: str) -> bool:
        """It shows this certificate. Returns whether that is news: older jobs are dead then."""
        one = self.get(name)
        if incarnation in one.retired:
            return False
        previous = one.incarnation
        if previous and previous != incarnation:
            self._retire(one, incarnation)
        one.incarnation = incarnation
        if not one.up or previous != incarnation:
            one.up, one.problem = True, ""
            self.out.note(
                f"{name}/{incarnation}/up/{self.out.serial()}",
                OrchestratorUp(orchestrator=name, incarnation=incarnation),
            )
        return previous != incarnation

    def _retire(self, one: Orchestrator, incarnation: str) -> None:
        one.retired[one.incarnation] = None
        if len(one.retired) > RETIRED_MAX:
            del one.retired[next(iter(one.retired))]
        self.out.note(
            f"{one.name}/{incarnation}/restarted",
            OrchestratorRestarted(
                orchestrator=one.name, incarnation=incarnation, previous=one.incarnation
            ),
        )

    def lost(self, fact: OrchestratorLost) -> None:
        """It cannot be reached. Running jobs go on: it may still take their results."""
        one = self.all.get(fact.orchestrator)
        if one is None:
            return
        known = one.problem and not one.up
        one.up, one.problem = False, fact.reason
        if known:
            return
        self.out.note(
            f"{one.name}/{one.incarnation or 'unseen'}/down/{self.out.serial()}",
            OrchestratorDown(
                orchestrator=one.name, incarnation=one.incarnation, reason=fact.reason
            ),
        )

    def takes(self, name: str, incarnation: str) -> bool:
        """Whether an answer to this incarnation would reach the one that asked."""
        return self.get(name).incarnation == incarnation

    # --- slot groups ------------------------------------------------------------------------------
    def group_up(self, fact: GroupUp) -> None:
        """A group is registered."""
        one = self.get(fact.orchestrator)
        group = one.groups.get(fact.group)
        if group is None or group.up:
            return
        group.up = True
        group.ups += 1
        self.out.note(
            f"{one.name}/{fact.group}/opened/{group.ups}",
            GroupOpened(
                orchestrator=one.name,
                group=fact.group,
                capacity=group.live.offer.capacity,
                capabilities=group.live.offer.bits,
            ),
        )

    def group_down(self, fact: GroupDown) -> None:
        """A group's stream ended; it is registered again by the shell while it is wanted."""
        one = self.get(fact.orchestrator)
        group = one.closing.pop(fact.group, None) or one.groups.get(fact.group)
        if group is not None and group.up:
            group.up = False
            self._closed(one, group, fact.reason)

    def _closed(self, one: Orchestrator, group: Group, reason: str) -> None:
        self.out.note(
            f"{one.name}/{group.live.name}/closed/{group.ups}",
            GroupClosed(orchestrator=one.name, group=group.live.name, reason=reason),
        )

    def follow_capacity(self) -> None:
        """Adapt the groups if the workers changed: soon, or at once if nothing is offered yet."""
        if not self.roster.capacity_changed:
            return
        self.roster.capacity_changed = False
        bare = any(one.weight and not one.groups for one in self.all.values())
        if bare and any(lane.capacity for lane in self.roster.lanes.all.values()):
            self.reconcile()
        elif self._due is None:
            self._due = self.timers.at(
                self.out.now_ms + self.settings.group_debounce_ms, self.reconcile
            )

    def reconcile(self) -> None:
        """Open and close groups so that they offer what the workers can do now."""
        self.timers.cancel(self._due)
        self._due = None
        weights = {name: one.weight for name, one in self.all.items() if one.weight}
        offers = [
            Offer(bits=lane.bits, version=lane.version, capacity=lane.capacity)
            for lane in self.roster.lanes.all.values()
        ]
        for name, wanted in plan_groups(offers, weights, self.settings).items():
            self._adapt(self.all[name], wanted)

    def _adapt(self, one: Orchestrator, wanted: list[Offer]) -> None:
        live = [group.live for group in one.groups.values()]
        changes = reconcile(live, wanted, self.settings)
        for offer in changes.opened:
            name = f"{self.settings.group_prefix}-{self.out.serial()}"
            one.groups[name] = Group(LiveGroup(name=name, offer=offer))
            self.out.do(
                OpenGroup(
                    orchestrator=one.name,
                    group=name,
                    capacity=offer.capacity,
                    capabilities=offer.bits,
                    version=offer.version,
                )
            )
        for name in changes.closed:
            group = one.groups.pop(name)
            if group.up:
                one.closing[name] = group
            self.out.do(CloseGroup(orchestrator=one.name, group=name))
