"""drain: observe → plan → apply → report, until the worker is empty or the deadline has passed.

The cordon does the draining. The worker's claims honour it, so once it is written the worker claims nothing new, and
the agent gives back the tasks that it has not started. This operation moves what waits in the worker's lanes, and
waits. It may be interrupted at any point and started again; the cordon stays until `uncordon`, even if the worker
restarts.
"""

from dataclasses import replace
from uuid import uuid4

from morag_queue.broker.contract import JournalNote
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import Cordon, HeldMessage, WorkerStatus
from morag_queue.core.plan import Applied, Blocker, Plan
from morag_queue.core.recovery.drain import DrainCheck, drain_blockers, plan_drain, plan_forced_requeue, unserved
from morag_queue.core.words import count_of, span
from morag_queue.errors import Refused

from .apply import apply
from .cordon import CordonResult, cordon_result, note, order_shutdown, worker_named
from .drain_options import DrainOptions, DrainProgress, refusal
from .liveness import count_connections
from .worker_tasks import held_tasks, pinned_count, running_tasks

_PAUSES = (0.05, 1.0)
"""First and longest pause between two snapshots, in seconds; each is half as long again as the one before."""

_REPORT_SECONDS = 10.0
"""Longest time between two progress lines."""

_UNDER_WAY = (WorkerStatus.DRAINING, WorkerStatus.DRAINED)


class Drain:
    """One drain of one registered worker. Raises NotFound, or UsageError when `given` is ambiguous."""

    def __init__(self, broker: RedisBroker, given: str, options: DrainOptions, progress: DrainProgress) -> None:
        self._broker, self._options, self._progress = broker, options, progress
        snapshot, _ = broker.observe()
        self._snapshot = count_connections(broker, snapshot)
        self._view = worker_named(self._snapshot, given)
        self._began = self._snapshot.taken_at
        self._plan_id = str(uuid4())
        self._applied = Applied(plan_id=self._plan_id)
        self._warnings: list[str] = []
        self._empty_since: float | None = None
        self._last_report: tuple[int, float] = (-1, 0.0)  # number of tasks and time of the last progress line

    @property
    def worker(self) -> str:
        return self._view.worker

    def blockers(self) -> tuple[Blocker, ...]:
        """Return the blockers that are not overridden; none for a drain that is under way."""
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
        """Return the answer of a dry run."""
        plans = [self._plan_moves(), *([self._plan_requeues()] if self._options.force else [])]
        return cordon_result(self._snapshot, self._view, state=self._state, dry_run=True).model_copy(
            update={
                "moved_tasks": sum(plan.expected.moved for plan in plans),
                "taken_back_tasks": sum(plan.expected.taken_back for plan in plans),
                "steps": tuple(step for plan in plans for step in plan.steps),
                "changed": self._state is not WorkerStatus.DRAINED,
            }
        )

    def run(self) -> CordonResult:
        """Drain the worker. Raises Refused for a blocker, and when the cordon is removed during the drain."""
        if self._state is WorkerStatus.DRAINED and not self._held:
            return self._shut_down(self._result(WorkerStatus.DRAINED, changed=False))
        if self._state in _UNDER_WAY or not self._place_cordon():
            self._join_drain()
        if not self._empty_worker():
            return self._result(WorkerStatus.DRAINING)
        return self._shut_down(self._mark_drained())

    # -- start

    def _place_cordon(self) -> bool:
        """Take the worker out of service. Return False if another drain of it was started at this moment."""
        if blockers := self.blockers():
            raise Refused(*refusal(blockers))
        options, deadline = self._options, self._options.deadline(self._began)
        cordon = Cordon(
            state=WorkerStatus.DRAINING, reason=options.reason, who=options.who, at=self._began, deadline=deadline
        )
        entry = note(self._view, options.who, "drain", options.reason, "draining", deadline=deadline)
        if not self._write_cordon(cordon, (None, WorkerStatus.CORDONED), entry):
            return False
        self._observe()
        self._progress.report(f"{self.worker} takes no new tasks")
        self._broker.control.refresh_cordon([self._view.info.node])
        for queue in unserved(self._snapshot, self._view, self._broker.settings.policy):
            self._warnings.append(f"no other worker in service reads {queue}: its tasks wait")
        return True

    def _join_drain(self) -> None:
        """Continue a drain that is under way, with a new deadline if the user chose one."""
        self._observe()
        cordon = self._cordon
        by = f" by {cordon.who}" if cordon.who else ""
        self._progress.report(f"{self.worker} is already being drained{by}: waiting for it to finish")
        if self._options.deadline_given:
            deadline = self._options.deadline(self._began)
            self._write_cordon(cordon.model_copy(update={"deadline": deadline}), over=(WorkerStatus.DRAINING,))
            self._observe()

    def _write_cordon(
        self, cordon: Cordon, over: tuple[WorkerStatus | None, ...], entry: JournalNote | None = None
    ) -> bool:
        with self._broker.translated():
            return self._broker.cordons.put(self.worker, cordon, over, note=entry)

    # -- observe → plan → apply → report

    def _empty_worker(self) -> bool:
        """Repeat until the worker is empty. Return False if the deadline passed first, or at once if detached."""
        pause, longest = _PAUSES
        while True:
            changed = self._move_waiting() or self._requeue_held()
            if self._is_empty(changed):
                return True
            self._report_progress()
            if self._options.detach or self._is_past_deadline:
                return False
            self._progress.pause(pause)
            pause = min(1.5 * pause, longest)
            self._observe()

    def _observe(self) -> None:
        self._snapshot, _ = self._broker.observe()
        self._view = self._snapshot.worker_by_id.get(self.worker) or replace(self._view, cordon=None)
        if self._state not in _UNDER_WAY:
            raise Refused(f"{self.worker} was put back into service during the drain: the drain has stopped")

    def _plan_moves(self) -> Plan:
        return plan_drain(self._snapshot, self._broker.queues, self.worker, plan_id=self._plan_id)

    def _plan_requeues(self) -> Plan:
        tasks = held_tasks(self._broker, (message.task_id for message in self._held))
        return plan_forced_requeue(self._snapshot, self._broker.queues, self.worker, tasks, plan_id=self._plan_id)

    def _move_waiting(self) -> bool:
        """Move what waits in the worker's lanes. Return whether anything was moved."""
        done = self._apply(self._plan_moves())
        if done.moved:
            self._progress.report(f"moved {count_of(done.moved, 'task')} from its lanes to the shared lanes")
        return done.moved > 0

    def _requeue_held(self) -> bool:
        """With --force: requeue what the worker holds. Return whether anything was requeued."""
        # The agent gives back the tasks that it has not started; waiting for that avoids running them twice.
        waited = self._snapshot.taken_at - self._began
        gives_back = len(self._held) > self._view.info.slots and waited < self._view.info.beat_seconds + 1
        if not self._options.force or gives_back:
            return False
        done = self._apply(self._plan_requeues())
        if done.taken_back:
            self._progress.report(
                f"requeued {count_of(done.taken_back, 'task')} that {self.worker} may have started: they run again on "
                f"other workers (at least once), and their results on {self.worker} are ignored"
            )
        return done.taken_back > 0

    def _apply(self, plan: Plan) -> Applied:
        done = apply(self._broker, plan)
        self._applied += done
        return done

    def _is_empty(self, changed: bool) -> bool:
        """Return whether the worker is empty and stays so. `changed`: this turn moved or requeued tasks."""
        if changed or self._held:
            self._empty_since = None
            return False
        now = self._snapshot.taken_at
        self._empty_since = now if self._empty_since is None else self._empty_since
        # A worker without the claim reads the cordon with its heartbeat; until then kombu may deliver another task.
        patience = 0.0 if self._view.info.claims else 2 * self._view.info.beat_seconds + 1
        return now - self._empty_since >= patience

    def _report_progress(self) -> None:
        """Report the tasks that still run when their number has changed, and every `_REPORT_SECONDS`."""
        count, (last_count, at), now = len(self._held), self._last_report, self._snapshot.taken_at
        if count and (count != last_count or now - at >= _REPORT_SECONDS):
            oldest = min(self._held, key=lambda message: message.claimed_at)
            age = span(now - oldest.claimed_at)
            self._progress.report(f"{count_of(count, 'task')} still running; the longest, {oldest.task_id}, for {age}")
            self._last_report = (count, now)
        self._progress.remaining(count)

    # -- end

    def _mark_drained(self) -> CordonResult:
        if stuck := self._snapshot.waiting_count(self.worker):
            reasons = "; ".join(sorted({declined.reason for declined in self._plan_moves().declined}))
            why = reasons or "they are not Celery's, or require a GPU"
            self._warnings.append(f"{count_of(stuck, 'message')} could not be moved out of its lanes: {why}")
        cordon = self._cordon
        entry = note(
            self._view, self._options.who, "drain", cordon.reason, "drained", moved_tasks=self._applied.moved,
            taken_back_tasks=self._applied.taken_back,
        )  # fmt: skip
        drained = cordon.model_copy(update={"state": WorkerStatus.DRAINED})
        self._write_cordon(drained, (WorkerStatus.DRAINING,), entry)
        self._progress.report(f"{self.worker} is drained")
        return self._result(WorkerStatus.DRAINED)

    def _shut_down(self, result: CordonResult) -> CordonResult:
        """With --shutdown: order the process to end, and wait for it unless detached."""
        if not self._options.shutdown or self._is_gone():
            return result
        options = self._options
        order_shutdown(self._broker, self.worker, self._view.info.node, who=options.who, reason=options.reason)
        if self._options.detach:
            return result
        self._progress.report(f"{self.worker} was ordered to shut down")
        while not self._is_gone():
            if self._is_past_deadline:
                warning = f"{self.worker} is drained, but its process still runs: it did not obey the shutdown order"
                return result.model_copy(update={"warnings": (*result.warnings, warning), "shut_down": False})
            self._progress.pause(_PAUSES[1] / 4)
            self._observe()
        self._progress.report(f"{self.worker} has shut down")
        return result.model_copy(update={"shut_down": True})

    def _is_gone(self) -> bool:
        """Return whether the process has closed its connections, or never opened any in this run."""
        with self._broker.translated():
            return not self._broker.registry.is_connected(self._view.info.client_name)

    def _result(self, state: WorkerStatus, *, changed: bool = True) -> CordonResult:
        done, waited = self._applied, round(self._snapshot.taken_at - self._began, 3)
        return cordon_result(self._snapshot, self._view, changed=changed).model_copy(
            update={
                "state": state, "moved_tasks": done.moved, "taken_back_tasks": done.taken_back,
                "waited_seconds": waited, "warnings": tuple(self._warnings),
            }
        )  # fmt: skip

    # -- the worker in the present snapshot

    @property
    def _cordon(self) -> Cordon:
        assert self._view.cordon is not None, self._view
        return self._view.cordon

    @property
    def _state(self) -> WorkerStatus | None:
        return None if self._view.cordon is None else self._view.cordon.state

    @property
    def _held(self) -> tuple[HeldMessage, ...]:
        return self._snapshot.held_by_worker.get(self.worker, ())

    @property
    def _is_past_deadline(self) -> bool:
        cordon = self._view.cordon
        return cordon is not None and cordon.deadline is not None and self._snapshot.taken_at >= cordon.deadline
