"""The recovery sweep: find lost work and plan its recovery. `failover --dead` sweeps once, `watch` part by part.

It finds unacked messages without a worker, lanes of unregistered workers, and open ledger entries without a message.
The amount of work per turn is bounded; the search for the third kind walks the ledger in steps. A task must be missing
twice, some time apart, before it is resent: between a pop and the record of it, kombu keeps a message in no key.
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
from morag_queue.core.words import count_of, some
from morag_queue.core.worker_status import agent_nodes

from .worker_tasks import held_tasks

SEARCH_AGAIN_SECONDS = 1.0
"""Time between the two searches for a missing task: longer than one pop of kombu takes."""

_STALE_PER_TURN = 1000
"""Stale messages read per turn."""

_LEDGER_STEPS_PER_TURN = 20
"""Steps through the ledger per turn, each of about a thousand keys and 2 ms of the server's time."""

_SEARCHED_MESSAGES = 500_000
"""Longest backlog that is searched for missing tasks: a second of the server's time, in slices of 2 ms."""

_REST_SECONDS = 60.0
"""Time until a task that was found may be searched for again."""


@dataclass(slots=True)
class Sweep:
    """A sweep and its state between turns.

    _cursor    position in the walk through the ledger, 0 at its start
    _skipped   stale messages to skip, because an earlier turn left them in place
    _missing   by id: a task that was missing once, and the time of that search
    _found_at  by id: the time when a task was searched for and found
    """

    broker: RedisBroker
    dry_run: bool = False
    _cursor: int = 0
    _skipped: int = 0
    _missing: dict[str, tuple[OpenTask, float]] = field(default_factory=dict)
    _found_at: dict[str, float] = field(default_factory=dict)

    @property
    def must_search_again(self) -> bool:
        """Return whether a task was missing once and must be searched for again."""
        return bool(self._missing)

    def plan(self, snapshot: Snapshot, *, whole_ledger: bool = False) -> Plan:
        """Plan what can be recovered now. `whole_ledger` walks the ledger to its end instead of a part of it."""
        settings = self.broker.settings
        with self.broker.translated():
            findings = self._search(snapshot, whole_ledger)
        plan = plan_sweep(snapshot, settings.policy, settings.queues, findings, plan_id=str(uuid4()))
        requeued = sum(isinstance(step, TakeBack) and step.untouched_since is not None for step in plan.steps)
        # A full page that stays in place would hide the messages behind it: the next turn skips it.
        found = len(findings.stale)
        self._skipped = self._skipped + found - requeued if found == _STALE_PER_TURN else 0
        return plan

    def _search(self, snapshot: Snapshot, whole_ledger: bool) -> SweepFindings:
        broker = self.broker
        held = held_by_former_runs(snapshot)
        before = snapshot.taken_at - orphan_after(snapshot, broker.settings.policy)
        stale = broker.lost.untouched(before, self._skipped, _STALE_PER_TURN)
        lost, undecided = self._find_lost(snapshot, whole_ledger)
        found = [[item.task_id for item in items] for items in (held, stale, lost)]
        return SweepFindings(
            tasks=held_tasks(broker, chain(*found)),
            finished=() if self.dry_run else set(broker.results.finish(held)),
            stale=stale,
            stale_before=before,
            agentless=broker.evidence.connected().agentless_workers if stale else 0,
            lost=lost,
            declined=undecided,
        )

    # -- open tasks without a message

    def _find_lost(self, snapshot: Snapshot, whole_ledger: bool) -> tuple[list[OpenTask], list[Declined]]:
        """Search for suspects, and again for those that were missing before. Return (lost tasks, undecided)."""
        now = snapshot.taken_at
        due = [task for task, since in self._missing.values() if now - since >= SEARCH_AGAIN_SECONDS]
        resting = {task_id: row for task_id, row in self._missing.items() if now - row[1] < SEARCH_AGAIN_SECONDS}
        new = self._new_suspects(snapshot, whole_ledger)
        if not due and not new:
            return [], []
        lists = all_lists(snapshot)
        if sum(length for _, _, length in lists) > _SEARCHED_MESSAGES:
            reason = f"not searched, because more than {_SEARCHED_MESSAGES} messages wait; `task retry` resends a task"
            subject = f"{count_of(len(due) + len(new), 'open task')} that may be lost"
            return [], [Declined(subject=subject, reason=reason)]
        absent = self._absent([*due, *new], lists)
        self._found_at |= {task.task_id: now for task in (*due, *new) if task.task_id not in absent}
        self._missing = resting | {task.task_id: (task, now) for task in new if task.task_id in absent}
        return self._certainly_lost([task for task in due if task.task_id in absent], snapshot)

    def _new_suspects(self, snapshot: Snapshot, whole_ledger: bool) -> list[OpenTask]:
        """Read the next part of the ledger. Return the suspects that are not being searched for already."""
        now = snapshot.taken_at
        self._found_at = {task_id: at for task_id, at in self._found_at.items() if now - at < _REST_SECONDS}
        before = now - self.broker.settings.policy.recovery.lost_after_seconds
        opened: list[OpenTask] = []
        steps = 0
        while whole_ledger or steps < _LEDGER_STEPS_PER_TURN:
            self._cursor, part = self.broker.lost.open_tasks(self._cursor, before)
            opened += part
            steps += 1
            if not self._cursor:
                break
        known = self._missing.keys() | self._found_at.keys()
        return [task for task in suspects(snapshot, opened) if task.task_id not in known]

    def _absent(self, wanted: list[OpenTask], lists: list[tuple[str, int, int]]) -> set[str]:
        """Return the ids that are neither held nor in a lane.

        The held messages are read before and after the lanes, because a task may be claimed during the search.
        """
        ids = {task.task_id for task in wanted} - self.broker.lost.unacked_ids()
        ids -= self.broker.lost.present(ids, lists) if ids else set()
        return ids - self.broker.lost.unacked_ids() if ids else set()

    def _certainly_lost(self, missing: list[OpenTask], snapshot: Snapshot) -> tuple[list[OpenTask], list[Declined]]:
        """Leave out tasks that have a result, and tasks that a worker without the agent may be running.

        Such a worker writes no owner record, and if it acknowledges early, its running task has no key at all.
        Return (lost tasks, undecided).
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
        if not remaining or not self.broker.evidence.connected().agentless_workers:
            return remaining, []
        if lost.keeps_results():
            workers = AgentlessWorkers(self.broker.client, self.broker.keys, self.broker.control)
            running, silent = workers.in_flight_and_silent(agent_nodes(snapshot, self.broker.settings.policy))
            remaining = [task for task in remaining if task.task_id not in running]
            if not silent:
                return remaining, []
        if not remaining:
            return [], []
        names = some(task.task_id for task in remaining)
        reason = "a worker without the agent that did not answer may run them, or may have run them"
        subject = f"{count_of(len(remaining), 'open task')} without a message ({names})"
        return [], [Declined(subject=subject, reason=reason)]
