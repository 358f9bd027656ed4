"""A plan and its result. Planning turns a Snapshot into a Plan; applying re-checks each step on the broker.

A step that no longer fits is not an error: it is rejected alone, and the rejection gives the reason.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from .model import Frozen
from .snapshot import Snapshot

PLAN_VERSION = 1
"""Version of the plan-file format; a plan of another version is refused."""


class MoveLane(Frozen):
    """All messages of one lane at one level, in their order, behind those that wait in the target at its level."""

    kind: Literal["move_lane"] = "move_lane"
    source: str
    target: str
    level: int = Field(ge=0, le=9)
    count: int = Field(ge=0, description="messages in the lane at that level when it was planned")
    reason: str
    rule: str = Field("", description="the balancing rule that planned it")
    keeps_gpu: bool = Field(False, description="work that requires a GPU stays: a CPU worker may read the target")
    to_level: int | None = Field(None, ge=0, le=9, description="None: the same level")

    @property
    def target_level(self) -> int:
        return self.level if self.to_level is None else self.to_level


class MoveTask(Frozen):
    """One message to another lane, another level, or both; it goes behind those that wait there."""

    kind: Literal["move_task"] = "move_task"
    task_id: str
    source: str
    target: str
    level: int = Field(ge=0, le=9)
    to_level: int = Field(ge=0, le=9)
    reason: str
    rule: str = Field("", description="the balancing rule that planned it")
    confidence: float = Field(1.0, ge=0, le=1)
    estimated_improvement: float = Field(0.0, description="minutes of expected flow time saved")
    keeps_gpu: bool = Field(True, description="it stays if it requires a GPU: a CPU worker may read the target")


class TakeBack(Frozen):
    """One held message, requeued to the front of a lane. Its worker is dead, fenced, or being drained by force."""

    kind: Literal["take_back"] = "take_back"
    task_id: str
    tag: str
    worker: str
    incarnation: str = Field(description="the incarnation recorded as its holder; empty: none is recorded")
    target: str
    level: int
    reason: str
    max_deaths: int | None = Field(None, description="worker deaths allowed before quarantine; None: not a death")
    untouched_since: float | None = Field(None, description="skip it if its worker has touched it since then")
    eta: str = Field("", description="earliest start (ISO 8601), for a message that has none of its own")


class Resend(Frozen):
    """One open task whose message is gone from the broker, sent again from its ledger entry."""

    kind: Literal["resend"] = "resend"
    task_id: str
    reason: str
    target: str = Field("", description="the shared lane that it goes to; empty: that of its queue")
    level: int | None = Field(None, ge=0, le=9, description="None: the one that it was submitted with")


Step = Annotated[MoveLane | MoveTask | TakeBack | Resend, Field(discriminator="kind")]


class Declined(Frozen):
    """An option that the planner considered and rejected, with the reason."""

    subject: str
    reason: str


class Plan(Frozen):
    """The steps of an operation. `taken_at` is the time of its snapshot, seconds since the epoch (server's clock)."""

    plan_id: str
    verb: str
    fleet: str
    taken_at: float
    steps: tuple[Step, ...] = ()
    declined: tuple[Declined, ...] = ()
    version: int = PLAN_VERSION

    @property
    def expected(self) -> "Applied":
        """The counts if every step succeeds, for dry runs."""
        return Applied(
            plan_id=self.plan_id,
            moved=sum(step.count if isinstance(step, MoveLane) else isinstance(step, MoveTask) for step in self.steps),
            taken_back=sum(isinstance(step, TakeBack) for step in self.steps),
            resent=sum(isinstance(step, Resend) for step in self.steps),
        )


def plan_of(verb: str, snapshot: Snapshot, parts: Iterable[Step | Declined], *, plan_id: str) -> Plan:
    """Return the plan of an operation on this snapshot, from its steps and declined options in their order."""
    found = list(parts)
    return Plan(
        plan_id=plan_id, verb=verb, fleet=snapshot.fleet, taken_at=snapshot.taken_at,
        steps=tuple(part for part in found if not isinstance(part, Declined)),
        declined=tuple(part for part in found if isinstance(part, Declined)),
    )  # fmt: skip


class Rejected(Frozen):
    """A step, or one message of it, that was not carried out. `task_id` is empty for a whole lane."""

    task_id: str
    reason: str


class Applied(Frozen):
    """The result of an applied plan. Each message of the plan is in one count, or in `rejected`.

    The sum of two counts keeps the plan id of the first.
    """

    plan_id: str
    moved: int = 0
    already: int = Field(0, description="messages that were at their target: the plan had been applied before")
    taken_back: int = 0
    resent: int = 0
    quarantined: int = 0
    finished: int = Field(0, description="tasks that had ended; only their acknowledgement was missing")
    changed: int = Field(0, description="waiting tasks with another priority or place")
    cancelled: int = 0
    revoked: int = Field(0, description="running tasks that Celery was asked to terminate; nothing confirms it")
    queued: int = Field(0, description="ended or quarantined tasks that were queued again")
    returned: int = Field(0, description="waiting tasks that were returned to the end that they had before, by an undo")
    unchanged: int = Field(0, description="tasks that already were as requested")
    foreign: int = Field(0, description="messages that are not Celery's; they stay in their lane")
    rejected: tuple[Rejected, ...] = ()

    def __add__(self, other: "Applied") -> "Applied":
        added = {name: getattr(self, name) + getattr(other, name) for name in _SUMMED}
        return self.model_copy(update=added)

    @property
    def has_changed(self) -> bool:
        """Return whether anything on the broker was changed."""
        return any(getattr(self, name) for name in _CHANGES)


_CHANGES = ("moved", "taken_back", "resent", "quarantined", "changed", "cancelled", "revoked", "queued", "returned")
_SUMMED = (*_CHANGES, "already", "finished", "unchanged", "foreign", "rejected")


class Blocker(Frozen):
    """A reason not to start, found before anything changes.

    `remedy` has the command that resolves it, `overridden_by` is the flag that ignores it, `effect` what that means.
    """

    kind: str
    subject: str
    reason: str
    remedy: str
    overridden_by: str
    effect: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}; {self.remedy}, or add {self.overridden_by} {self.effect}"
