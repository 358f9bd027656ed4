"""failover: observe → prove and fence → plan → apply → report.

A worker is proved dead by its missing connections, never by silence. Then its run is fenced: if it is alive after all,
or resumes later, its claims and heartbeats are refused, it gives up what it holds, and it registers anew. Its work is
requeued only after the fence, so a worker that comes back before it keeps its work.
"""

from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import Any
from uuid import uuid4

from pydantic import Field

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import Frozen, HeldMessage
from morag_queue.core.plan import Applied, Declined, Plan, Rejected, Step
from morag_queue.core.recovery.failover import plan_failover, without_tasks, without_workers
from morag_queue.core.recovery.liveness import Liveness, LivenessVerdict, is_overdue
from morag_queue.core.snapshot import Snapshot
from morag_queue.errors import NotFound, Refused

from .apply import apply
from .change import Change
from .liveness import FailoverTarget, LivenessCheck
from .names import resolve
from .sweep import SEARCH_AGAIN_SECONDS, Sweep
from .worker_tasks import held_tasks

_NAMED_TASKS = 100
"""Task ids that a journal entry names at most."""

FAILED_OVER = "failed over"
WOULD_FAIL_OVER = "would be failed over"
LEFT_ALONE = "left alone"


class WorkerVerdict(Frozen):
    """One worker: its liveness with the evidence, and what was done, or in a dry run what would be done."""

    worker: str
    verdict: Liveness
    evidence: tuple[str, ...]
    done: str = ""

    @property
    def is_failed_over(self) -> bool:
        """Whether the worker was failed over, or would be."""
        return self.done in (FAILED_OVER, WOULD_FAIL_OVER)

    @property
    def came_back(self) -> bool:
        """Whether the failover was given up because the worker came back."""
        return not self.is_failed_over and self.done != LEFT_ALONE


class FailoverResult(Frozen):
    """The answer; scripts rely on the counts. In a dry run they count what would be done.

    `finished_tasks` counts tasks that had ended; only their acknowledgement was missing.
    """

    plan_id: str
    workers: tuple[WorkerVerdict, ...] = ()
    requeued_tasks: int = 0
    moved_tasks: int = 0
    recovered_tasks: int = 0
    quarantined_tasks: int = 0
    finished_tasks: int = 0
    seconds: float = 0.0
    rejected: tuple[Rejected, ...] = ()
    declined: tuple[Declined, ...] = ()
    dry_run: bool = False
    steps: tuple[Step, ...] = Field((), description="of a dry run: what would be done, in this order")

    @property
    def has_changed(self) -> bool:
        return bool(self.requeued_tasks or self.moved_tasks or self.recovered_tasks or self.quarantined_tasks)


class Failover:
    """One failover. `pause` waits the given seconds; `term` is that of the caller's lease, if it leads.

    `applied` counts what was done. After `run_observed`, `snapshot` is the fleet without the recovered work.
    """

    def __init__(
        self,
        broker: RedisBroker,
        *,
        who: str,
        reason: str = "",
        pause: Callable[[float], None],
        term: str = "",
        dry_run: bool = False,
    ) -> None:
        self._broker, self._who, self._reason, self._pause, self._term = broker, who, reason, pause, term
        self._dry_run = dry_run
        self._check = LivenessCheck(broker, pause)
        self._plan_id = str(uuid4())
        self._began = monotonic()
        self._verdicts: list[WorkerVerdict] = []
        self._plans: list[Plan] = []
        self._has_fenced = False
        self.applied = Applied(plan_id=self._plan_id)

    def run_named(self, given: Sequence[str], *, force: bool = False) -> FailoverResult:
        """Fail over these workers. Raises NotFound, UsageError, and Refused if one of them is not proved dead."""
        snapshot, _ = self._broker.observe()
        names = dict.fromkeys(self._resolve(snapshot, name) for name in given)
        targets = self._check.ask(snapshot, self._check.judge(snapshot, names))
        alive = [target.verdict for target in targets if not target.is_dead]
        if alive and not force:
            raise Refused(*_not_dead(alive))
        self._fail_over(snapshot, targets)
        return self._result()

    def run_dead(self, sweep: Sweep) -> FailoverResult:
        """Fail over every dead worker that left work behind, then sweep. Silent workers are left alone."""
        snapshot, _ = self._broker.observe()
        policy = self._broker.settings.policy
        overdue = [view.worker for view in snapshot.workers if is_overdue(snapshot, view, policy)]
        targets = self._check.judge(snapshot, overdue)
        for target in targets:
            if not target.is_dead:
                self._record(target, LEFT_ALONE)
        self._fail_over(snapshot, [target for target in targets if target.is_dead])
        self._sweep(sweep)
        return self._result()

    def run_observed(
        self, snapshot: Snapshot, absent: Collection[str], silent: Collection[str], *, depth: int
    ) -> FailoverResult | None:
        """Fail over workers that the loop observed: `absent` ones if proved dead, `silent` ones in any case.

        Return None if there is none. A worker that came back is skipped and does not delay the others. `depth` is that
        of the snapshot, see `Broker.observe`.
        """
        targets = self._check.ask(snapshot, self._check.judge(snapshot, dict.fromkeys((*absent, *silent))))
        targets = [target for target in targets if target.is_dead or target.worker in silent]
        self.snapshot = snapshot
        if not targets:
            return None
        planned_on = self._fail_over(snapshot, targets, depth)
        self.snapshot = planned_on if self._dry_run else without_workers(planned_on, self._failed_over)
        return self._result()

    def _resolve(self, snapshot: Snapshot, given: str) -> str:
        known = {*snapshot.worker_by_id, *snapshot.lanes_by_worker, *snapshot.held_by_worker}
        try:
            return resolve("worker", given, known)
        except NotFound as error:
            hint = "to recover what workers without the agent lost: morag-queue failover --dead"
            raise NotFound(f"{error}; {hint}") from None

    # -- fence, plan, apply

    def _fail_over(self, snapshot: Snapshot, targets: Sequence[FailoverTarget], depth: int = 1) -> Snapshot:
        """Fence the targets and recover their work. Return the snapshot that the plan was made on."""
        change = self._change("failover", self._plan_id)
        if targets and not self._dry_run:
            evidence = {target.worker: target.verdict.evidence for target in targets}
            change.begin(", ".join(sorted(evidence)), {"evidence": evidence})
        for target in targets:
            self._record(target, WOULD_FAIL_OVER if self._dry_run else self._fence(target))
        finished: list[str] = []
        if targets and not self._dry_run:
            snapshot, _ = self._broker.observe(depth)  # includes what they claimed until they were fenced
            with self._broker.translated():
                finished = self._broker.results.finish(self._held(snapshot))
            self.applied += Applied(plan_id="", finished=len(finished))
            snapshot = without_tasks(snapshot, finished)
        settings = self._broker.settings
        tasks = held_tasks(self._broker, (message.task_id for message in self._held(snapshot)))
        plan = plan_failover(
            snapshot, settings.policy, settings.queues, self._failed_over, tasks, plan_id=self._plan_id
        )  # fmt: skip
        self._apply(plan, change, finished=len(finished))
        return snapshot

    def _change(self, verb: str, plan_id: str) -> Change:
        return Change(self._broker, verb, who=self._who, reason=self._reason, change_id=plan_id, term=self._term)

    def _fence(self, target: FailoverTarget) -> str:
        """Fence the worker. Return FAILED_OVER, or the reason why it was skipped."""
        if not target.incarnation:
            return FAILED_OVER  # the name never registered: there is no process to fence
        with self._broker.translated():
            present_run = self._broker.evidence.fence(target.worker, target.incarnation, term=self._term)
            if present_run:
                return f"it came back meanwhile ({present_run}) and keeps its work"
            self._broker.evidence.kill(target.client_name)
        self._has_fenced |= target.incarnation != "fenced"
        return FAILED_OVER

    def _sweep(self, sweep: Sweep) -> None:
        """Sweep, and once more for tasks whose message was missing: they count as lost if it is missing again."""
        snapshot, _ = self._broker.observe()
        self._sweep_once(sweep.plan(snapshot, whole_ledger=True))
        if sweep.must_search_again:
            self._pause(SEARCH_AGAIN_SECONDS)
            snapshot, _ = self._broker.observe()
            self._sweep_once(sweep.plan(snapshot))

    def _sweep_once(self, plan: Plan) -> None:
        change = self._change(plan.verb, plan.plan_id)
        if plan.steps and not self._dry_run:
            change.begin(self._subject, {})
        self._apply(plan, change)

    def _apply(self, plan: Plan, change: Change, *, finished: int = 0) -> None:
        """Apply a plan (in a dry run: count it), and finish the entry of the journal if something changed."""
        self._plans.append(plan)
        if self._dry_run:
            self.applied += plan.expected
            return
        applied = apply(self._broker, plan, term=self._term)
        self.applied += applied
        if applied.has_changed or finished or (self._has_fenced and plan.verb == "failover"):
            change.finish(self._subject, self._changes(plan, applied, finished))
        else:
            change.withdraw()

    # -- the answer

    @property
    def _failed_over(self) -> list[str]:
        return [verdict.worker for verdict in self._verdicts if verdict.is_failed_over]

    def _held(self, snapshot: Snapshot) -> list[HeldMessage]:
        return [message for worker in self._failed_over for message in snapshot.held_by_worker.get(worker, ())]

    def _record(self, target: FailoverTarget, done: str) -> None:
        verdict = target.verdict
        self._verdicts.append(
            WorkerVerdict(worker=verdict.worker, verdict=verdict.liveness, evidence=verdict.evidence, done=done)
        )

    def _result(self) -> FailoverResult:
        applied = self.applied
        return FailoverResult(
            plan_id=self._plan_id,
            workers=tuple(self._verdicts),
            requeued_tasks=applied.taken_back,
            moved_tasks=applied.moved,
            recovered_tasks=applied.resent,
            quarantined_tasks=applied.quarantined,
            finished_tasks=applied.finished,
            seconds=round(monotonic() - self._began, 3),
            rejected=applied.rejected,
            declined=tuple(dict.fromkeys(declined for plan in self._plans for declined in plan.declined)),
            dry_run=self._dry_run,
            steps=tuple(step for plan in self._plans for step in plan.steps) if self._dry_run else (),
        )

    @property
    def _subject(self) -> str:
        return ", ".join(sorted(self._failed_over)) or "the fleet"

    def _changes(self, plan: Plan, applied: Applied, finished: int) -> dict[str, Any]:
        counts = {
            "requeued_tasks": applied.taken_back, "moved_tasks": applied.moved, "recovered_tasks": applied.resent,
            "quarantined_tasks": applied.quarantined, **({"finished_tasks": finished} if finished else {}),
        }  # fmt: skip
        task_ids = [step.task_id for step in plan.steps if step.kind in ("take_back", "resend")]
        evidence = {verdict.worker: verdict.evidence for verdict in self._verdicts}
        return {**counts, "evidence": evidence, "tasks": task_ids[:_NAMED_TASKS]}


def _not_dead(alive: Sequence[LivenessVerdict]) -> list[str]:
    lines = [f"{verdict.worker} is {_WORDS[verdict.liveness]}: {'; '.join(verdict.evidence)}" for verdict in alive]
    return [
        *lines,
        "nothing was changed; --force fences the worker: its connections are closed, and others get its work",
    ]


_WORDS = {
    Liveness.ALIVE: "alive",
    Liveness.UNPROVEN: "not proved dead",
    Liveness.UNKNOWN: "not registered, so its death cannot be proved",
}
