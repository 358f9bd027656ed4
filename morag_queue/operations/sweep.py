"""The recovery sweep: find and recover work that is lost. `failover --dead` makes one, `watch` a part at a time.

It looks for three kinds: unacked messages without a worker, lanes of workers that do not exist, and open ledger entries
without a message. Each turn does a bounded amount of work; the search for the third kind walks the ledger in steps. A
task must be missing twice, some time apart, before it is sent again: between a pop and the record of it, kombu keeps a
message in no key.
"""

from dataclasses import dataclass, field
from itertools import chain
from uuid import uuid4

from morag_queue.broker.agentless import AgentlessWorkers
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.plan import Declined, Plan, TakeBack
from morag_queue.core.recovery.sweep import (
    OpenTask,
    SweepFindings,
    all_lists,
    held_by_former_runs,
    orphan_after,
    plan_sweep,
    suspects,
)
from morag_queue.core.snapshot import Snapshot

from .worker_tasks import held_tasks

LOOK_AGAIN_SECONDS = 1.0
"""Time between the two searches for a missing task: longer than one pop of kombu takes."""

_STALE_PER_TURN = 1000

_LEDGER_STEPS_PER_TURN = 20
"""Steps through the ledger, each of about a thousand keys and 2 ms of the server's time."""

_SEARCHED_MESSAGES = 500_000
"""Messages searched for missing tasks at most: a second of the server's time, in slices of 2 ms."""

_REST_SECONDS = 60.0
"""How long a task that was found is not searched for again."""


@dataclass(slots=True)
class Sweep:
    """A sweep and its state between turns."""

    broker: RedisBroker
    dry_run: bool = False
    _cursor: int = 0
    _skipped: int = 0
    _missing: dict[str, tuple[OpenTask, float]] = field(default_factory=dict)  # by id, with the time of the first miss
    _found_at: dict[str, float] = field(default_factory=dict)

    @property
    def must_look_again(self) -> bool:
        """Whether a task was missing once and must be searched for again."""
        return bool(self._missing)

    def plan(self, snapshot: Snapshot, *, whole_ledger: bool = False) -> Plan:
        """Plan what can be recovered now. `whole_ledger` walks the ledger to its end instead of a part of it."""
        settings = self.broker.settings
        with self.broker.translated():
            findings = self._search(snapshot, whole_ledger)
        plan = plan_sweep(snapshot, settings.policy, settings.queues, findings, plan_id=str(uuid4()))
        requeued = sum(isinstance(step, TakeBack) and step.untouched_since is not None for step in plan.steps)
        # Messages that stay are skipped next time, because others may follow them.
        found = len(findings.stale)
        self._skipped = self._skipped + found - requeued if found == _STALE_PER_TURN else 0
        return plan

    def _search(self, snapshot: Snapshot, whole_ledger: bool) -> SweepFindings:
        broker = self.broker
        held = held_by_former_runs(snapshot)
        before = snapshot.taken_at - orphan_after(snapshot, broker.settings.policy)
        stale = broker.lost.untouched(before, self._skipped, _STALE_PER_TURN)
        lost, undecided = self._lost(snapshot, whole_ledger)
        found = [[item.task_id for item in items] for items in (held, stale, lost)]
        return SweepFindings(
            tasks=held_tasks(broker, chain(*found)),
            finished=() if self.dry_run else set(broker.results.finish(held)),
            stale=stale,
            stale_before=before,
            agentless=broker.evidence.connected().agentless_connections if stale else 0,
            lost=lost,
            declined=undecided,
        )

    # -- open tasks without a message

    def _lost(self, snapshot: Snapshot, whole: bool) -> tuple[list[OpenTask], list[Declined]]:
        now = snapshot.taken_at
        self._found_at = {task_id: at for task_id, at in self._found_at.items() if now - at < _REST_SECONDS}
        again = [task for task, since in self._missing.values() if now - since >= LOOK_AGAIN_SECONDS]
        waiting = {task_id: row for task_id, row in self._missing.items() if now - row[1] < LOOK_AGAIN_SECONDS}
        new = [
            task
            for task in suspects(snapshot, self._opened(now, whole))
            if task.task_id not in self._missing and task.task_id not in self._found_at
        ]
        if not again and not new:
            return [], []
        lists = all_lists(snapshot)
        if sum(length for _, _, length in lists) > _SEARCHED_MESSAGES:
            reason = f"more than {_SEARCHED_MESSAGES} messages wait: not searched; `task retry` sends one again"
            return [], [Declined(subject=f"{len(again) + len(new)} open tasks that may be lost", reason=reason)]
        absent = self._absent([*again, *new], lists)
        for task in (*again, *new):
            if task.task_id not in absent:
                self._found_at[task.task_id] = now
        self._missing = waiting | {task.task_id: (task, now) for task in new if task.task_id in absent}
        return self._certainly_lost([task for task in again if task.task_id in absent], snapshot)

    def _opened(self, now: float, whole: bool) -> list[OpenTask]:
        before = now - self.broker.settings.policy.recovery.lost_after_seconds
        found: list[OpenTask] = []
        steps = 0
        while whole or steps < _LEDGER_STEPS_PER_TURN:
            self._cursor, opened = self.broker.lost.open_tasks(self._cursor, before)
            found += opened
            steps += 1
            if not self._cursor:
                break
        return found

    def _absent(self, wanted: list[OpenTask], lists: list[tuple[str, int, int]]) -> set[str]:
        """Ids that are neither held nor in a lane. Held messages are read first and last, to catch claims meanwhile."""
        ids = {task.task_id for task in wanted} - self.broker.lost.unacked_ids()
        ids -= self.broker.lost.present(ids, lists) if ids else set()
        return ids - self.broker.lost.unacked_ids() if ids else set()

    def _certainly_lost(self, missing: list[OpenTask], snapshot: Snapshot) -> tuple[list[OpenTask], list[Declined]]:
        """Leave out tasks that have a result, and tasks that a worker without the agent may be running.

        Such a worker writes no owner record, and if it acknowledges early, its running task has no key at all.
        """
        if not missing:
            return [], []
        lost = self.broker.lost
        ids = [task.task_id for task in missing]
        records, ended = self.broker.records(ids), lost.results(ids)
        for task_id, state in ended.items():
            if task_id in records and not self.dry_run:
                lost.close(task_id, records[task_id], state)
        remaining = [task for task in missing if task.task_id in records and task.task_id not in ended]
        if not remaining or not self.broker.evidence.connected().agentless_connections:
            return remaining, []
        if lost.keeps_results():
            workers = AgentlessWorkers(self.broker.client, self.broker.keys, self.broker.control)
            running, silent = workers.in_flight_and_silent([view.info.node for view in snapshot.workers])
            remaining = [task for task in remaining if task.task_id not in running]
            if not silent:
                return remaining, []
        if not remaining:
            return [], []
        few = ", ".join(task.task_id for task in remaining[:3])
        reason = "a worker without the agent may have run them, or is running them, and did not answer"
        return [], [Declined(subject=f"{len(remaining)} open tasks without a message ({few})", reason=reason)]
