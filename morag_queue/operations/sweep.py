"""The recovery sweep: what nobody looks after. `failover --dead` makes it once, `watch` a turn at a time.

Three kinds: messages in no hand, lanes of workers that are not there, open tasks that are nowhere on the broker. The
work of a turn is bounded; the last kind is looked for in steps through the ledger, and a task has to be missing twice,
some time apart, before it is sent again: between a pop and the note of it, kombu has a message in no key.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import uuid4

from morag_queue.broker.agentless import AgentlessWorkers
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.plan import Declined, Plan, Resend, Step
from morag_queue.core.recovery.sweep import (
    OpenTask,
    abandoned_lanes,
    all_lists,
    former_runs,
    of_former_runs,
    orphan_after,
    orphans,
    resends,
    suspects,
)
from morag_queue.core.snapshot import Snapshot

LOOK_AGAIN_SECONDS = 1.0
"""Between the two looks for a missing task: longer than one pop of kombu's takes."""


_UNTOUCHED_A_TURN = 1000


_STEPS_A_TURN = 20
"""Steps through the ledger, each of about a thousand keys and 2 ms of the server's time."""


_SEARCHED_AT_MOST = 500_000
"""Messages that are looked through for missing tasks: a second of the server's time, in slices of 2 ms."""


_REST_SECONDS = 60.0
"""How long a task that was found is not looked for again."""


@dataclass(slots=True)
class Sweep:
    """What a sweep keeps in mind between its turns."""

    broker: RedisBroker
    dry_run: bool = False
    _cursor: int = 0
    _passed: int = 0
    _missing: dict[str, tuple[OpenTask, float]] = field(default_factory=dict)  # by id; and when it was first missed
    _found_at: dict[str, float] = field(default_factory=dict)

    @property
    def must_look_again(self) -> bool:
        """Whether something was missing that was looked for once only."""
        return bool(self._missing)

    def turn(self, snapshot: Snapshot, *, whole_ledger: bool = False) -> Plan:
        """What can be done now. With `whole_ledger` the ledger is walked to its end, instead of a part of it."""
        with self.broker.translated():
            steps: list[Step] = [*self._hands(snapshot)]
            taken, declined = self._orphans(snapshot)
            policy, queues = self.broker.settings.policy, self.broker.settings.queues
            steps += [*taken, *abandoned_lanes(snapshot, policy, queues)]
            sent, unsure = self._lost(snapshot, whole_ledger)
        return Plan(
            plan_id=str(uuid4()), verb="sweep", fleet=snapshot.fleet, taken_at=snapshot.taken_at,
            steps=(*steps, *sent), declined=(*declined, *unsure),
        )  # fmt: skip

    def _hands(self, snapshot: Snapshot) -> Iterable[Step]:
        held = of_former_runs(snapshot)
        attempts = self.broker.evidence.attempts(one.task_id for one in held)
        done = set() if self.dry_run else set(self.broker.results.finish(held))
        found = former_runs(snapshot, self.broker.settings.policy, attempts)
        return [step for step in found if step.task_id not in done]

    def _orphans(self, snapshot: Snapshot) -> tuple[list[Step], list[Declined]]:
        before = snapshot.taken_at - orphan_after(snapshot, self.broker.settings.policy)
        found = self.broker.lost.untouched(before, self._passed, _UNTOUCHED_A_TURN)
        if not found:
            self._passed = 0
            return [], []
        steps, declined = orphans(snapshot, found, before, self.broker.evidence.connected().agentless_connections)
        # What stays is passed over next time: others may be behind it.
        self._passed = self._passed + len(found) - len(steps) if len(found) == _UNTOUCHED_A_TURN else 0
        return [*steps], declined

    # -- tasks that are nowhere

    def _lost(self, snapshot: Snapshot, whole: bool) -> tuple[list[Resend], list[Declined]]:
        now = snapshot.taken_at
        self._found_at = {one: at for one, at in self._found_at.items() if now - at < _REST_SECONDS}
        again = [one for one, since in self._missing.values() if now - since >= LOOK_AGAIN_SECONDS]
        waiting = {one: kept for one, kept in self._missing.items() if now - kept[1] < LOOK_AGAIN_SECONDS}
        new = [
            one
            for one in suspects(snapshot, self._opened(now, whole))
            if one.task_id not in self._missing and one.task_id not in self._found_at
        ]
        if not again and not new:
            return [], []
        lists = all_lists(snapshot)
        if sum(length for _, _, length in lists) > _SEARCHED_AT_MOST:
            reason = f"more than {_SEARCHED_AT_MOST} messages wait: not looked through; `task retry` sends one again"
            return [], [Declined(subject=f"{len(again) + len(new)} open tasks that may be lost", reason=reason)]
        absent = self._absent([*again, *new], lists)
        for one in (*again, *new):
            if one.task_id not in absent:
                self._found_at[one.task_id] = now
        self._missing = waiting | {one.task_id: (one, now) for one in new if one.task_id in absent}
        return self._sure([one for one in again if one.task_id in absent], snapshot)

    def _opened(self, now: float, whole: bool) -> list[OpenTask]:
        before = now - self.broker.settings.policy.recovery.lost_after_seconds
        found: list[OpenTask] = []
        steps = 0
        while whole or steps < _STEPS_A_TURN:
            self._cursor, opened = self.broker.lost.open_tasks(self._cursor, before)
            found += opened
            steps += 1
            if not self._cursor:
                break
        return found

    def _absent(self, wanted: list[OpenTask], lists: list[tuple[str, int, int]]) -> set[str]:
        """Those that are in no hand and no lane. Hands first and last: what is taken meanwhile is in one of the two."""
        ids = {one.task_id for one in wanted} - self.broker.lost.unacked_ids()
        ids -= self.broker.lost.present(ids, lists) if ids else set()
        return ids - self.broker.lost.unacked_ids() if ids else set()

    def _sure(self, missing: list[OpenTask], snapshot: Snapshot) -> tuple[list[Resend], list[Declined]]:
        """Without those of which a result says that they have run, and those that a worker without the agent runs.

        Such a worker tells nobody else; one that acknowledges early has its task in no key while it runs.
        """
        if not missing:
            return [], []
        lost = self.broker.lost
        ids = [one.task_id for one in missing]
        records, ended = lost.records(ids), lost.results(ids)
        for task_id, state in ended.items():
            if task_id in records and not self.dry_run:
                lost.close(task_id, records[task_id], state)
        left = [one for one in missing if one.task_id in records and one.task_id not in ended]
        if not left or not self.broker.evidence.connected().agentless_connections:
            return resends(left), []
        if lost.keeps_results():
            stock = AgentlessWorkers(self.broker.client, self.broker.keys, self.broker.control)
            running, silent = stock.running([view.info.node for view in snapshot.workers])
            left = [one for one in left if one.task_id not in running]
            if not silent:
                return resends(left), []
        few = ", ".join(one.task_id for one in left[:3])
        reason = "a worker without the agent may have run them, or runs them, and there is no answer that would say so"
        return [], [Declined(subject=f"{len(left)} open tasks that are nowhere ({few})", reason=reason)] if left else []
