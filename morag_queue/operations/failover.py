"""failover: proof → fence → take back, move, send again.

A worker is proved dead by what the server knows of its connections, never by silence. Then its name is fenced: if it
was alive after all, or wakes later, its claims and beats are refused, it gives up what it has in hand, and it registers
anew. Only after that is anything taken from it, so that what comes back in the middle of it is not robbed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from uuid import uuid4

from pydantic import Field

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import Frozen
from morag_queue.core.plan import Applied, Declined, Plan, Rejected, Step
from morag_queue.core.recovery.failover import plan_failover
from morag_queue.core.recovery.liveness import Liveness, LivenessEvidence, LivenessVerdict, assess_liveness, is_overdue
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.errors import NotFound, Refused

from .apply import apply
from .names import resolve
from .sweep import LOOK_AGAIN_SECONDS, Sweep

_SECOND_LOOK_SECONDS = 0.1
"""A live worker whose connections have just been cut opens new ones within this time."""


_IDS_KEPT = 100


class WorkerVerdict(Frozen):
    """One worker, what it was judged to be and why; `done` says what became of it."""

    worker: str
    verdict: Liveness
    evidence: tuple[str, ...]
    done: str = ""


class FailoverResult(Frozen):
    """The answer; scripts rely on the counts. `finished_tasks` had ended, and only their acknowledgement lacked."""

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


@dataclass(frozen=True, slots=True)
class _Target:
    judgement: LivenessVerdict
    client_name: str
    incarnation: str
    is_certain: bool


class Failover:
    """One failover. `pause` waits so many seconds; `term` is that of the caller's lease, if it leads."""

    def __init__(
        self, broker: RedisBroker, *, who: str, reason: str = "", pause: Callable[[float], None], term: str = ""
    ) -> None:
        self._broker, self._who, self._reason, self._pause, self._term = broker, who, reason, pause, term
        self._plan_id = str(uuid4())
        self._began = monotonic()
        self._has_fenced = False

    def named(self, given: Sequence[str], *, force: bool = False, dry_run: bool = False) -> FailoverResult:
        """Fails over the workers that are named. Raises NotFound, UsageError, and Refused where one is not dead."""
        snapshot, _ = self._broker.observe()
        names = [self._resolve(snapshot, one) for one in given]
        targets = self._judge(snapshot, dict.fromkeys(names), asking=True)
        alive = [one.judgement for one in targets if one.judgement.life is not Liveness.DEAD]
        if alive and not force:
            raise Refused(*_not_dead(alive))
        return self._fail_over(snapshot, targets, dry_run)

    def dead(self, sweep: Sweep, *, dry_run: bool = False) -> FailoverResult:
        """Fails over all that are dead and have left something, and sweeps. What is only silent is left alone."""
        snapshot, _ = self._broker.observe()
        due = [view.worker for view in snapshot.workers if is_overdue(snapshot, view, self._broker.settings.policy)]
        targets = self._judge(snapshot, due, asking=False)
        proved = [one for one in targets if one.judgement.life is Liveness.DEAD]
        done = self._fail_over(snapshot, proved, dry_run, [one for one in targets if one not in proved])
        return self._swept(done, sweep, dry_run)

    # -- proof

    def _resolve(self, snapshot: Snapshot, given: str) -> str:
        known = {*snapshot.worker_by_id, *snapshot.lanes_by_worker, *snapshot.held_by_worker}
        try:
            return resolve("worker", given, known)
        except NotFound as error:
            raise NotFound(f"{error}; what workers without the agent lost is found by: failover --dead") from None

    def _judge(self, snapshot: Snapshot, names: Sequence[str] | dict[str, None], *, asking: bool) -> list[_Target]:
        targets = self._once(snapshot, names)
        if any(one.judgement.life is Liveness.DEAD and not one.is_certain for one in targets):
            self._pause(_SECOND_LOOK_SECONDS)  # a blip has cut the connections of a live worker, perhaps
            snapshot, _ = self._broker.observe()
            targets = self._once(snapshot, names)
        silent = [one for one in targets if one.judgement.life is not Liveness.DEAD]
        if silent and asking:
            nodes = [view.info.node for one in silent if (view := snapshot.worker_by_id.get(one.judgement.worker))]
            known = nodes if len(nodes) == len(silent) else None  # to ask all who are there takes a whole second
            answered = {node.partition("@")[0] for node in self._broker.control.ping(known)}
            again = self._once(snapshot, [one.judgement.worker for one in silent], answered)
            by_name = {one.judgement.worker: one for one in again}
            targets = [by_name.get(one.judgement.worker, one) for one in targets]
        return targets

    def _once(
        self, snapshot: Snapshot, names: Sequence[str] | dict[str, None], answered: set[str] | None = None
    ) -> list[_Target]:
        with self._broker.translated():
            connected = self._broker.evidence.connected().names if names else {}
        found = []
        for worker in names:
            view = snapshot.worker_by_id.get(worker)
            client_name = view.info.client_name if view else ""
            signs = LivenessEvidence(
                connections=connected.get(client_name, 0),
                answered=None if answered is None else worker in answered,
                process_is_gone=view is not None
                and self._broker.evidence.process_is_gone(view.info.host, view.info.pid),
            )
            incarnation = "" if view is None else "fenced" if view.fenced else view.info.incarnation
            is_certain = signs.process_is_gone or _is_silent(view, snapshot.taken_at)
            found.append(
                _Target(assess_liveness(worker, view, signs, snapshot.taken_at), client_name, incarnation, is_certain)
            )
        return found

    # -- deed

    def _fail_over(
        self, snapshot: Snapshot, targets: Sequence[_Target], dry_run: bool, others: Sequence[_Target] = ()
    ) -> FailoverResult:
        judged = [_judged(one.judgement, "left alone") for one in others]
        gone: list[str] = []
        finished: list[str] = []
        for target in targets:
            came_back = "" if dry_run else self._fence(target)
            judged.append(_judged(target.judgement, came_back or "failed over"))
            if not came_back:
                gone.append(target.judgement.worker)
                self._has_fenced |= target.incarnation not in ("", "fenced")
        if targets and not dry_run:
            snapshot, _ = self._broker.observe()  # what it took until it was fenced
            with self._broker.translated():
                held = [one for worker in gone for one in snapshot.held_by_worker.get(worker, ())]
                finished = self._broker.results.finish(held)
            if finished:
                snapshot, _ = self._broker.observe()
        plan = self._plan(snapshot, gone)
        applied = Applied(plan_id=plan.plan_id) if dry_run else apply(self._broker, plan, term=self._term)
        done = FailoverResult(
            plan_id=self._plan_id, workers=tuple(judged), dry_run=dry_run, finished_tasks=len(finished)
        )
        return self._counted(done, plan, applied)

    def _fence(self, target: _Target) -> str:
        """'' or why it is left alone. Whoever is fenced can change nothing any more."""
        worker = target.judgement.worker
        if not target.incarnation:
            return ""  # nobody has registered in that name: there is nobody to fence
        with self._broker.translated():
            acting = self._broker.evidence.fence(worker, target.incarnation, term=self._term)
            if acting:
                return f"it came back meanwhile ({acting}) and looks after its own"
            self._broker.evidence.kill(target.client_name)
        return ""

    def _plan(self, snapshot: Snapshot, gone: Sequence[str]) -> Plan:
        settings = self._broker.settings
        with self._broker.translated():
            ids = [one.task_id for worker in gone for one in snapshot.held_by_worker.get(worker, ())]
            attempts = self._broker.evidence.attempts(ids)
        return plan_failover(
            snapshot, gone, settings.policy, settings.queues, plan_id=self._plan_id, attempts=attempts
        )  # fmt: skip

    def _swept(self, done: FailoverResult, sweep: Sweep, dry_run: bool) -> FailoverResult:
        for look in range(2):
            snapshot, _ = self._broker.observe()
            plan = sweep.turn(snapshot, whole_ledger=look == 0)
            applied = Applied(plan_id=plan.plan_id) if dry_run else apply(self._broker, plan, term=self._term)
            done = self._counted(done, plan, applied)
            if not sweep.must_look_again:
                break
            self._pause(LOOK_AGAIN_SECONDS)
        return done

    def _counted(self, done: FailoverResult, plan: Plan, applied: Applied) -> FailoverResult:
        """The answer with what was done (in a dry run: would be done) added, and noted in the journal."""
        changes = {
            "requeued_tasks": applied.taken_back,
            "moved_tasks": applied.moved,
            "recovered_tasks": applied.resent,
            "quarantined_tasks": applied.quarantined,
        }
        if done.dry_run:
            changes = _planned(plan)
            done = done.model_copy(update={"steps": (*done.steps, *plan.steps)})
        else:
            finished = done.finished_tasks if plan.verb == "failover" else 0
            noted = {**changes, "finished_tasks": finished} if finished else changes
            if any(noted.values()) or (self._has_fenced and plan.verb == "failover"):
                self._note(done, plan, noted)
        return done.model_copy(
            update={
                **{name: getattr(done, name) + count for name, count in changes.items()},
                "rejected": (*done.rejected, *applied.rejected),
                "declined": tuple(dict.fromkeys((*done.declined, *plan.declined))),
                "seconds": round(monotonic() - self._began, 3),
            }
        )

    def _note(self, done: FailoverResult, plan: Plan, changes: dict[str, int]) -> None:
        ids = [step.task_id for step in plan.steps if step.kind in ("take_back", "resend")]
        gone = sorted(one.worker for one in done.workers if one.done == "failed over")
        evidence = {one.worker: one.evidence for one in done.workers}
        with self._broker.translated():
            self._broker.journal.write(
                self._who, plan.verb, ", ".join(gone) or "the fleet", reason=self._reason, plan_id=plan.plan_id,
                changes={**changes, "evidence": evidence, "tasks": ids[:_IDS_KEPT]},
            )  # fmt: skip


def _is_silent(view: WorkerView | None, now: float) -> bool:
    if view is None or view.fenced or view.beat is None or view.beat.stopped:
        return True
    return now - view.beat.at > 2 * view.info.beat_seconds


def _planned(plan: Plan) -> dict[str, int]:
    return {
        "requeued_tasks": sum(step.kind == "take_back" for step in plan.steps),
        "moved_tasks": sum(step.count for step in plan.steps if step.kind == "move_lane"),
        "recovered_tasks": sum(step.kind == "resend" for step in plan.steps),
        "quarantined_tasks": 0,
    }


def _judged(judgement: LivenessVerdict, done: str) -> WorkerVerdict:
    return WorkerVerdict(worker=judgement.worker, verdict=judgement.life, evidence=judgement.evidence, done=done)


def _not_dead(alive: Sequence[LivenessVerdict]) -> list[str]:
    lines = [f"{one.worker} is {_WORDS[one.life]}: {'; '.join(one.evidence)}" for one in alive]
    return [
        *lines,
        "nothing was changed; --force fences it: its connections are closed, what it has is given to others",
    ]


_WORDS = {
    Liveness.ALIVE: "alive",
    Liveness.UNPROVEN: "not proved dead",
    Liveness.UNKNOWN: "not registered, so nothing proves it dead",
}
