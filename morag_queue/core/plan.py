"""A plan and what became of it. Deciding makes a Plan out of a Snapshot; applying it re-checks every step.

A step that no longer fits is not an error: it is refused, alone, and the refusal says why.
"""

from typing import Annotated, Literal

from pydantic import Field

from .model import Frozen

PLAN_VERSION = 1
"""Of the file format: a plan written by a version that means something else by it is refused."""


class MoveLane(Frozen):
    """All messages of one lane at one level, in their order, behind those that wait in the target at that level."""

    kind: Literal["move_lane"] = "move_lane"
    source: str
    target: str
    level: int = Field(ge=0, le=9)
    count: int = Field(ge=0, description="how many were there when it was planned")
    reason: str
    rule: str = Field("", description="the rule of the policy that asks for it")
    keeps_gpu: bool = Field(False, description="what needs a GPU stays: a worker without one reads the target")


class MoveTask(Frozen):
    """One chosen message: to another lane, another level, or both. It goes behind those that wait there."""

    kind: Literal["move_task"] = "move_task"
    task_id: str
    source: str
    target: str
    level: int = Field(ge=0, le=9)
    to_level: int = Field(ge=0, le=9)
    reason: str
    rule: str = Field("", description="the rule of the policy that asks for it")
    confidence: float = Field(1.0, ge=0, le=1)
    estimated_improvement: float = Field(0.0, description="minutes of expected flow time saved")


class TakeBack(Frozen):
    """One message out of the hands of a worker that is dead or fenced, first in line where it goes."""

    kind: Literal["take_back"] = "take_back"
    task_id: str
    tag: str
    worker: str
    incarnation: str = Field(description="who is believed to hold it; empty for nobody")
    target: str
    level: int = Field(ge=0, le=9)
    reason: str
    max_deaths: int | None = Field(None, description="how many workers may die over it; None: this is no death")
    untouched_since: float | None = Field(None, description="not if its worker has said since that it has it")
    eta: str = Field("", description="not to be run before, for one that says nothing itself")


class Resend(Frozen):
    """One task that the ledger knows and the broker does not, sent again from the ledger."""

    kind: Literal["resend"] = "resend"
    task_id: str
    reason: str


Step = Annotated[MoveLane | MoveTask | TakeBack | Resend, Field(discriminator="kind")]


class Declined(Frozen):
    """A road that was looked at and not taken, and why."""

    subject: str
    reason: str


class Plan(Frozen):
    """What a verb wants to do. `taken_at` is the moment of the snapshot, seconds since the epoch (server's clock)."""

    plan_id: str
    verb: str
    fleet: str
    taken_at: float
    steps: tuple[Step, ...] = ()
    declined: tuple[Declined, ...] = ()
    version: int = PLAN_VERSION


class Rejected(Frozen):
    """A step, or one message of it, that was not carried out. `task_id` is empty for a whole lane."""

    task_id: str
    reason: str


class Applied(Frozen):
    """What was done. Every message of the plan is counted once: here, or in `rejected`."""

    plan_id: str
    moved: int = 0
    already: int = Field(0, description="messages that were where the plan wanted them: it was applied before")
    taken_back: int = 0
    resent: int = 0
    quarantined: int = 0
    finished: int = Field(0, description="tasks that had ended; only their acknowledgement was missing")
    changed: int = Field(0, description="waiting tasks with another priority or place")
    cancelled: int = 0
    revoked: int = Field(0, description="running tasks that Celery was asked to terminate; nothing confirms it")
    queued: int = Field(0, description="ended or quarantined tasks that were queued again")
    unchanged: int = Field(0, description="tasks that already were as wanted")
    foreign: int = Field(0, description="messages not of the expected form, left where they are")
    rejected: tuple[Rejected, ...] = ()


class Blocker(Frozen):
    """One obstacle found before anything is touched. `overridden_by` is the flag that goes on in spite of it."""

    kind: str
    subject: str
    reason: str
    remedy: str
    overridden_by: str | None = None
