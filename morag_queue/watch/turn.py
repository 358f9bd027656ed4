"""One turn of the loop: observe → plan → apply → report. All times are the broker's.

First the mandatory part (circuit breakers of workers that keep restarting, failover of dead workers), then balancing.
Each write carries the leader's term, so a leader that was suspended and resumes under another leader changes nothing.

A turn reads the whole fleet once, and a second time only if it fences a worker: the failover needs everything that the
worker claimed until then. Balancing is planned on the last of these snapshots, minus what the failover recovered.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter, sleep
from typing import Any

from pydantic import Field

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.explain.decisions import TaskDecision, decisions
from morag_queue.core.plan import Applied, Declined, MoveLane, MoveTask, Plan
from morag_queue.core.recovery.liveness import is_overdue
from morag_queue.core.snapshot import Snapshot
from morag_queue.operations.apply import apply
from morag_queue.operations.change import Change
from morag_queue.operations.failover import Failover, FailoverResult
from morag_queue.operations.rebalance import DEPTH, apply_turn, plan_turn
from morag_queue.operations.sweep import Sweep

from .breakers import close_breakers, open_breakers

VERB = "watch"

_NAMED_TASKS = 200
"""Maximum number of task ids in a journal entry."""


@dataclass(frozen=True, slots=True)
class PollEvidence:
    """Evidence from the polls between two turns that a single snapshot cannot show; see `core.fleet_poll`.

    absent    workers whose connections are gone
    silent    connected workers that missed the heartbeat timeout
    flapping  workers that keep restarting, with the number of recent starts
    """

    absent: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    flapping: Mapping[str, int] = field(default_factory=dict)


class TurnReport(Applied):
    """What a turn did, failover included. `rules` counts its moves by the balancing rule that planned them."""

    trigger: str
    taken_at: float
    declined: tuple[Declined, ...] = ()
    rules: dict[str, int] = Field(default_factory=dict)
    decisions: tuple[TaskDecision, ...] = ()
    failed_over: FailoverResult | None = None
    opened_breakers: tuple[str, ...] = ()
    seconds: float = 0.0
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class TurnResult:
    """The report of a turn, the state to keep for the next one, and the snapshot that the plan was made from."""

    report: TurnReport
    state: BalancerState
    snapshot: Snapshot


def step(
    broker: RedisBroker,
    state: BalancerState,
    evidence: PollEvidence,
    *,
    term: str,
    who: str,
    trigger: str = "tick",
    dry_run: bool = False,
    pause: Callable[[float], None] = sleep,
) -> TurnResult:
    """Make one turn. Raises LeaseLost as soon as a write is rejected for its term."""
    started = perf_counter()
    settings = broker.settings
    snapshot, _ = broker.observe(DEPTH)
    opened: tuple[str, ...] = ()
    if not dry_run:
        close_breakers(broker, snapshot, term=term, who=who)
        opened = tuple(open_breakers(broker, snapshot, evidence.flapping, term=term, who=who))
    failover = Failover(broker, who=who, reason="found by the loop", pause=pause, term=term, dry_run=dry_run)
    failed = failover.run_observed(snapshot, *_due(broker, snapshot, evidence), depth=DEPTH)
    turn = plan_turn(broker, settings, state, snapshot=failover.snapshot)
    applied, kept = Applied(plan_id=turn.plan.plan_id), turn.state
    if not dry_run:
        applied, kept = apply_turn(broker, turn, settings, term=term, who=who, verb=VERB, reason=trigger)
    report = TurnReport(
        **_counts(applied if failed is None or dry_run else applied + failover.applied),
        trigger=trigger,
        taken_at=turn.plan.taken_at,
        declined=(*(failed.declined if failed else ()), *turn.plan.declined),
        rules=_by_rule(turn.plan, applied),
        decisions=decisions(turn.plan.steps) if dry_run else (),
        failed_over=failed,
        opened_breakers=opened,
        seconds=round(perf_counter() - started, 4),
        dry_run=dry_run,
    )
    return TurnResult(report, kept, failover.snapshot)


def sweep_step(broker: RedisBroker, sweep: Sweep, *, term: str, who: str) -> TurnReport:
    """Make the next part of the recovery sweep. Raises LeaseLost as `step` does."""
    started = perf_counter()
    snapshot, _ = broker.observe()
    plan = sweep.plan(snapshot)
    change = Change(broker, VERB, who=who, reason="recovery sweep", change_id=plan.plan_id, term=term)
    if plan.steps:
        change.begin("the fleet", {})
    applied = apply(broker, plan, term=term)
    if applied.has_changed:
        ids = [step.task_id for step in plan.steps if not isinstance(step, MoveLane)]
        counts = {name: getattr(applied, name) for name in ("moved", "taken_back", "resent", "quarantined")}
        change.finish("the fleet", {**counts, "tasks": ids[:_NAMED_TASKS]})
    else:
        change.withdraw()
    return TurnReport(
        **_counts(applied), trigger="sweep", taken_at=plan.taken_at, declined=plan.declined,
        rules=_by_rule(plan, applied), seconds=round(perf_counter() - started, 4),
    )  # fmt: skip


def _due(broker: RedisBroker, snapshot: Snapshot, evidence: PollEvidence) -> tuple[list[str], list[str]]:
    """Return the absent and the silent workers that left tasks behind."""
    views, held, policy = snapshot.worker_by_id, snapshot.held_by_worker, broker.settings.policy
    overdue = {
        name
        for name in evidence.absent | evidence.silent
        if name in views and is_overdue(snapshot, views[name], policy)
    }
    absent = [name for name in sorted(evidence.absent) if name in overdue or (name in views and held.get(name))]
    return absent, sorted(overdue & evidence.silent)


def _counts(applied: Applied) -> dict[str, Any]:
    return {name: getattr(applied, name) for name in Applied.model_fields}


def _by_rule(plan: Plan, applied: Applied) -> dict[str, int]:
    rejected = {refusal.task_id for refusal in applied.rejected}
    rules: Counter[str] = Counter()
    for step in plan.steps:
        if isinstance(step, MoveTask) and step.rule and step.task_id not in rejected:
            rules[step.rule] += 1
        elif isinstance(step, MoveLane) and step.rule:
            rules[step.rule] += step.count
    return dict(rules)
