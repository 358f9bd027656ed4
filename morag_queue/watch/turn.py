"""One turn of the loop: observe → decide → apply → report. A function of its inputs; time is the broker's.

First what is not a choice (breakers of workers that start again and again, failover of dead ones), then balancing. Each
write names the leader's term, so a leader that was paused, and wakes when another one leads, changes nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import perf_counter, sleep
from typing import Any
from uuid import uuid4

from pydantic import Field

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.balancing.rebalance import PlannedTurn, rebalance, window_seconds
from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.explain.decisions import TaskDecision, decisions
from morag_queue.core.model import Cordon, Frozen, WorkerStatus
from morag_queue.core.plan import Applied, Declined, MoveLane, MoveTask, Plan, Rejected
from morag_queue.core.recovery.liveness import is_overdue
from morag_queue.core.snapshot import Snapshot
from morag_queue.errors import NotFound, Refused
from morag_queue.operations.apply import apply
from morag_queue.operations.failover import Failover, FailoverResult
from morag_queue.operations.rebalance import DEPTH, apply_turn
from morag_queue.operations.sweep import Sweep

VERB = "watch"


_IDS_KEPT = 200


@dataclass(frozen=True, slots=True)
class PollEvidence:
    """What was seen between two turns that no single picture shows; see `core.poll`.

    `absent` are workers that are proved dead by their connections, `silent` connected ones that have missed the
    heartbeat timeout, `flapping` how often a worker has started again lately.
    """

    absent: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    flapping: Mapping[str, int] = field(default_factory=dict)


class TurnReport(Frozen):
    """What a turn did. `rules` counts its moves by the rule that asked for them."""

    trigger: str
    plan_id: str
    taken_at: float
    moved: int = 0
    taken_back: int = 0
    resent: int = 0
    quarantined: int = 0
    foreign: int = 0
    rejected: tuple[Rejected, ...] = ()
    declined: tuple[Declined, ...] = ()
    rules: dict[str, int] = Field(default_factory=dict)
    decisions: tuple[TaskDecision, ...] = ()
    failed_over: FailoverResult | None = None
    opened_breakers: tuple[str, ...] = ()
    seconds: float = 0.0
    dry_run: bool = False

    @property
    def has_changed(self) -> bool:
        return bool(self.moved or self.taken_back or self.resent or self.quarantined)


@dataclass(frozen=True, slots=True)
class TurnResult:
    """A turn's report, what to remember until the next, and the picture that it was made on."""

    report: TurnReport
    memory: BalancerState
    snapshot: Snapshot


def step(
    broker: RedisBroker,
    memory: BalancerState,
    evidence: PollEvidence,
    *,
    term: str,
    who: str,
    trigger: str = "tick",
    dry_run: bool = False,
    pause: Callable[[float], None] = sleep,
) -> TurnResult:
    """One turn. Time is the broker's. Raises LeaseLost as soon as a write is refused for its term."""
    began = perf_counter()
    settings = broker.settings
    snapshot, _ = broker.observe(DEPTH)
    opened = () if dry_run else tuple(_open_breakers(broker, snapshot, evidence.flapping, term=term, who=who))
    failed = _fail_over(broker, snapshot, evidence, term=term, who=who, dry_run=dry_run, pause=pause)
    if failed is not None and failed.has_changed and not dry_run:
        snapshot, _ = broker.observe(DEPTH)
    windows = broker.windows(snapshot.taken_at, window_seconds(settings.policy))
    turn = rebalance(
        snapshot,
        memory,
        settings.policy,
        settings.queues,
        plan_id=str(uuid4()),
        windows=windows,
        corrections=snapshot.corrections,
    )
    applied, kept = Applied(plan_id=turn.plan.plan_id), turn.memory
    if not dry_run:
        applied, kept = apply_turn(broker, turn, settings, term=term, who=who, verb=VERB, reason=trigger)
    report = _reported(turn, applied, failed, trigger=trigger, dry_run=dry_run)
    seconds = round(perf_counter() - began, 4)
    report = report.model_copy(update={"opened_breakers": opened, "seconds": seconds})
    return TurnResult(report, kept, snapshot)


def sweep_step(broker: RedisBroker, sweep: Sweep, *, term: str, who: str) -> TurnReport:
    """The next part of the recovery sweep. Raises LeaseLost as `step` does."""
    began = perf_counter()
    snapshot, _ = broker.observe()
    plan = sweep.turn(snapshot)
    applied = apply(broker, plan, term=term)
    report = _done(plan, applied, "sweep")
    if report.has_changed:
        ids = [step.task_id for step in plan.steps if not isinstance(step, MoveLane)]
        changes = {name: getattr(report, name) for name in ("moved", "taken_back", "resent", "quarantined")}
        with broker.translated():
            broker.journal.write(
                who, VERB, "the fleet", reason="recovery sweep", plan_id=plan.plan_id,
                changes={**changes, "tasks": ids[:_IDS_KEPT]},
            )  # fmt: skip
    return report.model_copy(update={"seconds": round(perf_counter() - began, 4)})


def _open_breakers(
    broker: RedisBroker, snapshot: Snapshot, flapping: Mapping[str, int], *, term: str, who: str
) -> Iterable[str]:
    """Takes workers that start again and again out of service for a while; a person's own cordon stands."""
    recovery = broker.settings.policy.recovery
    for worker, starts in flapping.items():
        if worker not in snapshot.worker_by_id:
            continue
        now = snapshot.taken_at
        reason = f"it has started {starts} times within {recovery.breaker_seconds:.0f} s"
        cordon = Cordon(
            state=WorkerStatus.CORDONED, reason=reason, who="circuit breaker", at=now,
            until=now + recovery.breaker_seconds,
        )  # fmt: skip
        with broker.translated():
            if broker.cordons.put(worker, cordon, (None,), term=term):
                broker.journal.write(who, "cordon", worker, reason=reason, changes={"until": cordon.until})
                yield worker


def _fail_over(
    broker: RedisBroker,
    snapshot: Snapshot,
    evidence: PollEvidence,
    *,
    term: str,
    who: str,
    dry_run: bool,
    pause: Callable[[float], None],
) -> FailoverResult | None:
    """Of those that have left something behind: the dead ones, and the silent ones, which are fenced first."""
    views = snapshot.worker_by_id
    policy = broker.settings.policy
    held = snapshot.held_by_worker
    dead = [
        name
        for name in sorted(evidence.absent)
        if name in views and (held.get(name) or is_overdue(snapshot, views[name], policy))
    ]
    silent = [name for name in sorted(evidence.silent) if name in views and is_overdue(snapshot, views[name], policy)]
    done: list[FailoverResult] = []
    for names, force in ((dead, False), (silent, True)):
        failover = Failover(broker, who=who, reason="found by the loop", pause=pause, term=term)
        try:
            done += [failover.named(names, force=force, dry_run=dry_run)] if names else []
        except (Refused, NotFound):  # one of them is back: the others are not to wait for that
            done += _one_by_one(failover, names, dry_run)
    return _together(done)


def _one_by_one(failover: Failover, names: Iterable[str], dry_run: bool) -> Iterable[FailoverResult]:
    for name in names:
        try:
            yield failover.named([name], dry_run=dry_run)
        except (Refused, NotFound):
            continue


def _together(done: list[FailoverResult]) -> FailoverResult | None:
    if len(done) < 2:
        return done[0] if done else None
    counts = ("requeued_tasks", "moved_tasks", "recovered_tasks", "quarantined_tasks", "seconds")
    added: dict[str, Any] = {name: sum(getattr(one, name) for one in done) for name in counts}
    lists = ("workers", "rejected", "declined")
    added |= {name: tuple(item for one in done for item in getattr(one, name)) for name in lists}
    return done[0].model_copy(update=added)


def _reported(
    turn: PlannedTurn, applied: Applied, failed: FailoverResult | None, *, trigger: str, dry_run: bool
) -> TurnReport:
    report = _done(turn.plan, applied, trigger)
    more: dict[str, Any] = {"dry_run": dry_run, "failed_over": failed}
    if dry_run:
        more["decisions"] = decisions(turn.plan.steps)
    if failed is not None:
        more |= {
            "moved": report.moved + failed.moved_tasks,
            "taken_back": report.taken_back + failed.requeued_tasks,
            "resent": report.resent + failed.recovered_tasks,
            "quarantined": report.quarantined + failed.quarantined_tasks,
            "rejected": (*failed.rejected, *report.rejected),
            "declined": (*failed.declined, *report.declined),
        }
    return report.model_copy(update=more)


def _done(plan: Plan, applied: Applied, trigger: str) -> TurnReport:
    refused = {one.task_id for one in applied.rejected}
    rules: dict[str, int] = {}
    for one in plan.steps:
        if isinstance(one, MoveTask) and one.task_id not in refused:
            rules[one.rule] = rules.get(one.rule, 0) + 1
        elif isinstance(one, MoveLane) and one.rule:
            rules[one.rule] = rules.get(one.rule, 0) + one.count
    return TurnReport(
        trigger=trigger, plan_id=plan.plan_id, taken_at=plan.taken_at, moved=applied.moved,
        taken_back=applied.taken_back, resent=applied.resent, quarantined=applied.quarantined,
        foreign=applied.foreign, rejected=applied.rejected, declined=plan.declined, rules=rules,
    )  # fmt: skip
