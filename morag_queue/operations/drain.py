"""drain: observe → plan → apply → wait, and again until the worker is empty or the deadline has passed.

The cordon does the draining. The worker's claims honour it, so from the moment it is written nothing new is claimed,
and the agent gives back what it has not started. This operation moves what waits in the worker's lanes, and waits. It
may be interrupted at any point and started again; the cordon stands until `uncordon`, even if the worker restarts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import uuid4

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import Cordon, HeldMessage, WorkerStatus
from morag_queue.core.plan import Applied, Blocker, Plan
from morag_queue.core.recovery.drain import DrainCheck, drain_blockers, plan_drain, plan_forced_requeue, unserved
from morag_queue.core.words import count_of
from morag_queue.errors import Refused

from .apply import apply
from .cordon import CordonResult, cordon_result, note, worker_named
from .worker_tasks import held_tasks, pinned_count, running_tasks

DEADLINE_SECONDS = 3600.0
"""Default deadline of a drain; nomad's default."""

_PAUSES = (0.05, 1.0)
"""First and longest pause between two snapshots, in seconds; each is half as long again as the one before."""

_REPORT_SECONDS = 10.0

_UNDER_WAY = (WorkerStatus.DRAINING, WorkerStatus.DRAINED)


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """`deadline_seconds` None waits without limit; `deadline_given` is whether the user named one."""

    who: str
    reason: str = ""
    deadline_seconds: float | None = DEADLINE_SECONDS
    deadline_given: bool = False
    force: bool = False
    detach: bool = False
    shutdown: bool = False
    overrides: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """`pause` waits the given seconds, `report` gets a line per event, `remaining` the number of tasks to wait for."""

    pause: Callable[[float], None]
    report: Callable[[str], None] = lambda line: None
    remaining: Callable[[int], None] = lambda count: None


class Drain:
    """One drain of one registered worker. Raises NotFound, or UsageError when `given` is ambiguous."""

    def __init__(self, broker: RedisBroker, given: str, options: DrainOptions, progress: DrainProgress) -> None:
        self._broker, self._options, self._progress = broker, options, progress
        self._snapshot, _ = broker.observe()
        self._view = worker_named(self._snapshot, given)
        self._began = self._snapshot.taken_at
        self._plan_id = str(uuid4())
        self._applied = Applied(plan_id=self._plan_id)
        self._warnings: list[str] = []
        self._empty_since: float | None = None
        self._reported: tuple[int, float] = (-1, 0.0)  # count and time of the last progress line

    @property
    def worker(self) -> str:
        return self._view.worker

    def plan(self) -> Plan:
        """What would be moved now."""
        return plan_drain(self._snapshot, self._broker.queues, self.worker, plan_id=self._plan_id)

    def blockers(self) -> tuple[Blocker, ...]:
        """The blockers that are not overridden; none for a drain that is under way."""
        if self._state in _UNDER_WAY or self._options.force:
            return ()
        check = DrainCheck(
            self._snapshot, self._view, self._broker.settings.policy,
            running=tuple(running_tasks(self._broker, self._snapshot, self._view)),
            pinned=pinned_count(self._broker, self._snapshot, self.worker),
            deadline_seconds=self._options.deadline_seconds,
        )  # fmt: skip
        overrides = self._options.overrides
        return tuple(blocker for blocker in drain_blockers(check) if blocker.overridden_by not in overrides)

    def preview(self) -> CordonResult:
        """The answer of a dry run."""
        plans = [self.plan(), *([self._forced_requeue()] if self._options.force else [])]
        return cordon_result(self._snapshot, self._view, state=self._state, dry_run=True).model_copy(
            update={
                "moved_tasks": sum(plan.expected.moved for plan in plans),
                "taken_back_tasks": sum(plan.expected.taken_back for plan in plans),
                "steps": tuple(step for plan in plans for step in plan.steps),
                "changed": self._state is not WorkerStatus.DRAINED,
            }
        )

    def run(self) -> CordonResult:
        """Drain the worker. Raises Refused when a blocker stands, or when the cordon is lifted meanwhile."""
        if self._state is WorkerStatus.DRAINED and not self._held:
            return self._shut_down(self._result(WorkerStatus.DRAINED, changed=False))
        if self._state in _UNDER_WAY or not self._start():
            self._join()
        if not self._empty():
            return self._result(WorkerStatus.DRAINING)
        return self._shut_down(self._finish())

    # -- start

    def _start(self) -> bool:
        """Write the cordon. Returns False when another drain was started at this moment."""
        if blockers := self.blockers():
            raise Refused(*refusal(blockers))
        options, now = self._options, self._began
        deadline = None if options.deadline_seconds is None else now + options.deadline_seconds
        cordon = Cordon(state=WorkerStatus.DRAINING, reason=options.reason, who=options.who, at=now, deadline=deadline)
        if not self._put(cordon, (None, WorkerStatus.CORDONED)):
            return False
        note(self._broker, self._view, options.who, "drain", options.reason, "draining", deadline=deadline)
        self._observe()
        self._report(f"{self.worker} takes nothing any more")
        self._broker.control.refresh_cordon([self._view.info.node])
        for queue in unserved(self._snapshot, self._view, self._broker.settings.policy):
            self._warnings.append(f"{self.worker} was the last worker in service for {queue}: work for it waits")
        return True

    def _join(self) -> None:
        """Continue a drain that is under way, with a new deadline if the user named one."""
        self._observe()
        cordon = self._view.cordon
        assert cordon is not None, self._state
        by = f" by {cordon.who}" if cordon.who else ""
        self._report(f"{self.worker} is being drained{by} already: waiting for that")
        if self._options.deadline_given:
            seconds = self._options.deadline_seconds
            deadline = None if seconds is None else self._began + seconds
            self._put(cordon.model_copy(update={"deadline": deadline}), (WorkerStatus.DRAINING,))
            self._observe()

    def _put(self, cordon: Cordon, over: tuple[WorkerStatus | None, ...]) -> bool:
        with self._broker.translated():
            return self._broker.cordons.put(self.worker, cordon, over)

    # -- observe → plan → apply, until it is empty

    def _empty(self) -> bool:
        """Returns False when the deadline has passed first, or the drain continues detached."""
        pause, longest = _PAUSES
        while not self._turn():
            self._report_progress()
            if self._options.detach or self._is_late:
                return False
            self._progress.pause(pause)
            pause = min(1.5 * pause, longest)
            self._observe()
        return True

    def _observe(self) -> None:
        self._snapshot, _ = self._broker.observe()
        self._view = self._snapshot.worker_by_id.get(self.worker) or replace(self._view, cordon=None)
        if self._state not in _UNDER_WAY:
            raise Refused(f"{self.worker} was put back into service meanwhile: nothing more of it is moved")

    def _turn(self) -> bool:
        """Move and requeue what is possible. Returns True when the worker is empty."""
        if self._move() or (self._options.force and self._requeue()) or self._held:
            self._empty_since = None
            return False
        now = self._snapshot.taken_at
        self._empty_since = now if self._empty_since is None else self._empty_since
        # A worker without the claim reads the cordon with its heartbeat; until then kombu may deliver another task.
        patience = 0.0 if self._view.info.claims else 2 * self._view.info.beat_seconds + 1
        return now - self._empty_since >= patience

    def _move(self) -> bool:
        done = self._apply(self.plan())
        if done.moved:
            self._report(f"moved {count_of(done.moved, 'task')} from its lanes to the shared lanes")
        return done.moved > 0

    def _requeue(self) -> bool:
        # The agent gives back by itself what it has not started; waiting for that avoids running such a task twice.
        waited = self._snapshot.taken_at - self._began
        if len(self._held) > self._view.info.slots and waited < self._view.info.beat_seconds + 1:
            return False
        done = self._apply(self._forced_requeue())
        if done.taken_back:
            self._report(
                f"took back {count_of(done.taken_back, 'task')} that may have begun: they run again elsewhere "
                f"(at least once), and how they end on {self.worker} does not count"
            )
        return done.taken_back > 0

    def _forced_requeue(self) -> Plan:
        held = held_tasks(self._broker, (message.task_id for message in self._held))
        return plan_forced_requeue(self._snapshot, self._broker.queues, self.worker, held, plan_id=self._plan_id)

    def _apply(self, plan: Plan) -> Applied:
        done = apply(self._broker, plan)
        self._applied += done
        return done

    # -- the end

    def _finish(self) -> CordonResult:
        if stuck := self._snapshot.waiting_count(self.worker):
            reasons = "; ".join(sorted({declined.reason for declined in self.plan().declined}))
            why = reasons or "not of Celery's form, or only for workers with a GPU"
            self._warnings.append(f"{stuck} messages stay in its lanes: {why}")
        cordon = self._view.cordon
        assert cordon is not None, self._state
        if self._put(cordon.model_copy(update={"state": WorkerStatus.DRAINED}), (WorkerStatus.DRAINING,)):
            note(
                self._broker, self._view, self._options.who, "drain", cordon.reason, "drained",
                moved_tasks=self._applied.moved, taken_back_tasks=self._applied.taken_back,
            )  # fmt: skip
        self._report(f"{self.worker} is drained")
        return self._result(WorkerStatus.DRAINED)

    def _shut_down(self, result: CordonResult) -> CordonResult:
        """With --shutdown: order the process to end, and wait for it unless detached."""
        if not self._options.shutdown or self._is_gone():
            return result
        if not self._options.detach:
            self._report(f"ordering {self.worker} to shut down")
        self._order_shutdown()
        if self._options.detach:
            return result
        while not self._is_gone():
            if self._is_late:
                warning = f"{self.worker} is drained, and its process still runs: it did not follow the order"
                return result.model_copy(update={"warnings": (*result.warnings, warning), "shut_down": False})
            self._progress.pause(_PAUSES[1] / 4)
            self._observe()
        self._report(f"{self.worker} has shut down")
        return result.model_copy(update={"shut_down": True})

    def _order_shutdown(self) -> None:
        """Order a warm shutdown: Celery lets running tasks end first. The worker does not confirm it."""
        node, options = self._view.info.node, self._options
        self._broker.control.shut_down([node])
        with self._broker.translated():
            changes = {"node": node}
            self._broker.journal.write(options.who, "shutdown", self.worker, reason=options.reason, changes=changes)

    def _is_gone(self) -> bool:
        """Whether the process has closed its connections, or never opened any in this run."""
        with self._broker.translated():
            return not self._broker.registry.is_connected(self._view.info.client_name)

    def _result(self, state: WorkerStatus, *, changed: bool = True) -> CordonResult:
        return cordon_result(self._snapshot, self._view, changed=changed).model_copy(
            update={
                "state": state,
                "moved_tasks": self._applied.moved,
                "taken_back_tasks": self._applied.taken_back,
                "waited_seconds": round(self._snapshot.taken_at - self._began, 3),
                "warnings": tuple(self._warnings),
            }
        )

    # -- the worker in the present snapshot

    @property
    def _state(self) -> WorkerStatus | None:
        return None if self._view.cordon is None else self._view.cordon.state

    @property
    def _held(self) -> tuple[HeldMessage, ...]:
        return self._snapshot.held_by_worker.get(self.worker, ())

    @property
    def _is_late(self) -> bool:
        cordon = self._view.cordon
        return cordon is not None and cordon.deadline is not None and self._snapshot.taken_at >= cordon.deadline

    def _report_progress(self) -> None:
        """Report when the count has changed, and every few seconds."""
        count, (before, at), now = len(self._held), self._reported, self._snapshot.taken_at
        if count and (count != before or now - at >= _REPORT_SECONDS):
            oldest = min(self._held, key=lambda message: message.claimed_at)
            age = f"{now - oldest.claimed_at:.0f} s"
            self._report(f"{count_of(count, 'task')} left; the oldest, {oldest.task_id}, for {age}")
            self._reported = (count, now)
        self._progress.remaining(count)

    def _report(self, line: str) -> None:
        self._progress.report(line)


def refusal(blockers: tuple[Blocker, ...]) -> list[str]:
    """All blockers at once, each with its remedy and the flag that overrides it."""
    lines = [
        f"{blocker.subject}: {blocker.reason}; {blocker.remedy}, or add {blocker.overridden_by}" for blocker in blockers
    ]
    return [*lines, "nothing was changed; --force overrides all of this, and takes back what is running"]
