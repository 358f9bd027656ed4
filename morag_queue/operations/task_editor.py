"""Tasks changed by hand: what `cancel`, `move`, `prio` and `retry` have in common.

Each decides a step for each task it was given; here the steps are carried out, each re-checked by the broker, and
written down. A task that was taken or moved meanwhile is looked up and decided again, a few times.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, assert_never

from pydantic import Field

from morag_queue.broker.connection import translated
from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.dead_letters import DeadLetter
from morag_queue.broker.lanes import LaneEdit, LaneEdits
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_lookup import TaskHit
from morag_queue.core.model import Frozen, TaskState
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.task import TaskFilter
from morag_queue.errors import ExitStatus
from morag_queue.settings import Settings

from .task import NameProblem, TaskExplainer
from .tasks import SelectedTask, Tasks

NOTED = 1000
"""Tasks of one change that the journal names, and that it can undo; of the others it keeps the count."""


_TRIES = 3


_PAGE = 500
"""Tasks whose ledger entries are read at once."""


@dataclass(frozen=True, slots=True)
class Update:
    """A waiting message in another form, in another place, or nowhere."""

    change: LaneEdit
    outcome: str
    detail: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Revoke:
    """An order to the worker that holds it; nobody confirms it."""

    node: str
    worker: str
    terminate: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Revive:
    """Out of `dead`, into a lane."""

    grave: DeadLetter
    text: str
    record: str
    lane: str
    level: int
    is_worker_lane: bool
    story: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Resubmit:
    """A new message of an ended task."""

    outgoing: OutgoingMessage


@dataclass(frozen=True, slots=True)
class NoChange:
    """It already is as wanted."""

    detail: str


@dataclass(frozen=True, slots=True)
class RefusedEdit:
    """`overridable`: --force does it all the same."""

    detail: str
    status: ExitStatus = ExitStatus.REFUSED


Step = Update | Revoke | Revive | Resubmit | NoChange | RefusedEdit


Decide = Callable[[TaskExplainer, TaskHit], Step]


class TaskChange(Frozen):
    """What became of one task. `outcome`: cancelled, revoked, moved, changed, queued, unchanged or refused."""

    task_id: str
    outcome: str
    detail: str
    before: dict[str, Any] = Field(default_factory=dict)
    after: dict[str, Any] = Field(default_factory=dict)


@dataclass(slots=True)
class EditReport:
    """`entry_id` is the journal's entry, empty where nothing was changed."""

    verb: str
    dry_run: bool
    tasks: list[TaskChange] = field(default_factory=list)
    statuses: set[ExitStatus] = field(default_factory=set)
    entry_id: str = ""

    @property
    def changed(self) -> list[TaskChange]:
        return [one for one in self.tasks if one.outcome not in ("unchanged", "refused")]

    @property
    def refused(self) -> list[TaskChange]:
        return [one for one in self.tasks if one.outcome == "refused"]

    @property
    def exit_status(self) -> ExitStatus:
        if not self.refused:
            return ExitStatus.OK
        if len(self.refused) < len(self.tasks):
            return ExitStatus.PARTIAL
        return self.statuses.copy().pop() if len(self.statuses) == 1 else ExitStatus.FAILED

    def as_json(self) -> dict[str, Any]:
        return {
            "verb": self.verb,
            "dry_run": self.dry_run,
            "changed": len(self.changed),
            "unchanged": len(self.tasks) - len(self.changed) - len(self.refused),
            "refused": len(self.refused),
            "tasks": self.tasks,
            "journal": self.entry_id or None,
        }


class TaskEditor:
    """One change by one person for one reason, of one task or many."""

    def __init__(
        self, broker: RedisBroker, settings: Settings, verb: str, *, who: str, reason: str = "", dry_run: bool = False
    ) -> None:
        self._broker, self._settings, self._verb = broker, settings, verb
        self._who, self._reason, self._dry_run = who, reason, dry_run
        self._steering = LaneEdits(broker.client, broker.keys, settings.ledger.retention_seconds)

    @cached_property
    def snapshot(self) -> Snapshot:
        """The fleet, for who has to resolve a name first."""
        return self._broker.observe()[0]

    def named(self, ids: Iterable[str], decide: Decide) -> EditReport:
        """The tasks of these ids, or beginnings of ids. One that is not there is refused, and stops no other."""
        look, report = TaskExplainer(self._broker, self._settings), self._report()
        return self._run(report, look, list(self._found(report, look, ids)), decide)

    def chosen(self, wanted: TaskFilter) -> list[TaskHit]:
        """The tasks that a filter means: waiting ones; those in workers' hands where the filter asks for them."""
        tasks = Tasks(self._broker, self._settings)
        if wanted.state in (TaskState.RUNNING, TaskState.FAILED, TaskState.QUARANTINED):
            found = TaskExplainer(self._broker, self._settings).find_all(task.task_id for task in tasks.all(wanted))
            return [one for one in found if isinstance(one, TaskHit)]
        return list(self._with_records(tasks.waiting(wanted)))

    def _with_records(self, waiting: Iterator[SelectedTask]) -> Iterator[TaskHit]:
        while page := list(islice(waiting, _PAGE)):
            records = self._broker.records(one.task.task_id for one in page)
            for one in page:
                yield TaskHit(one.task, one.waiting.raw.decode(), records.get(one.task.task_id))

    def all(self, found: Sequence[TaskHit], decide: Decide) -> EditReport:
        """These tasks."""
        return self._run(self._report(), TaskExplainer(self._broker, self._settings), found, decide)

    # -- deciding and carrying out

    def _report(self) -> EditReport:
        return EditReport(self._verb, self._dry_run)

    def _run(self, report: EditReport, look: TaskExplainer, found: Sequence[TaskHit], decide: Decide) -> EditReport:
        remaining = list(found)
        for last in (n == _TRIES - 1 for n in range(_TRIES)):
            steps = [(one, decide(look, one)) for one in remaining]
            missed = self._carry_out(report, steps)
            if not missed:
                break
            if last:
                for one in missed:
                    self._refuse(report, one.task.task_id, RefusedEdit("it kept moving meanwhile: try again"))
                break
            look = TaskExplainer(self._broker, self._settings)
            remaining = list(self._found(report, look, (one.task.task_id for one in missed)))
        self._write_down(report)
        return report

    def _found(self, report: EditReport, look: TaskExplainer, ids: Iterable[str]) -> Iterator[TaskHit]:
        seen = set()
        for one in look.find_all(ids):
            if isinstance(one, NameProblem):
                self._refuse(report, one.name, RefusedEdit(str(one.error), one.error.exit_status))
            elif one.task.task_id not in seen:
                seen.add(one.task.task_id)
                yield one

    def _carry_out(self, report: EditReport, steps: Sequence[tuple[TaskHit, Step]]) -> list[TaskHit]:
        """Gives back the tasks that were no longer where they had been read."""
        missed: list[TaskHit] = []
        puts = [(one, step) for one, step in steps if isinstance(step, Update)]
        with translated(self._settings.redis_url):
            done = [True] * len(puts) if self._dry_run else self._steering.apply([step.change for _, step in puts])
            for (one, put), was_done in zip(puts, done, strict=True):
                if was_done:
                    self._note(report, one, put.outcome, put.detail, put.before, put.after)
                else:
                    missed.append(one)
            for one, step in steps:
                if not isinstance(step, Update) and not self._one(report, one, step):
                    missed.append(one)
        return missed

    def _one(self, report: EditReport, one: TaskHit, step: Revoke | Revive | Resubmit | NoChange | RefusedEdit) -> bool:
        match step:
            case Revoke():
                if not self._dry_run:
                    if one.tag is not None:
                        self._broker.requeues.revoke(one.tag)
                    self._broker.control.revoke(step.node, one.task.task_id, terminate=step.terminate)
                self._note(report, one, "revoked", step.detail, {"worker": step.worker}, {})
            case Revive():
                if not self._dry_run and not self._broker.dead.revive(
                    step.grave, step.text, step.record, step.lane, step.level, is_worker_lane=step.is_worker_lane,
                    story=step.story,
                ):  # fmt: skip
                    return False
                detail = f"out of dead, to {step.lane}"
                self._note(report, one, "queued", detail, {"state": one.task.state.value}, {"lane": step.lane})
            case Resubmit():
                if not self._dry_run and not all(self._broker.submit([step.outgoing])):
                    return False
                detail = f"sent again to {step.outgoing.lane}"
                after = {"lane": step.outgoing.lane}
                self._note(report, one, "queued", detail, {"state": one.task.state.value}, after)
            case NoChange():
                report.tasks.append(TaskChange(task_id=one.task.task_id, outcome="unchanged", detail=step.detail))
            case RefusedEdit():
                self._refuse(report, one.task.task_id, step)
            case _:
                assert_never(step)
        return True

    def _note(
        self, report: EditReport, one: TaskHit, outcome: str, detail: str, before: Mapping[str, Any],
        after: Mapping[str, Any],
    ) -> None:  # fmt: skip
        report.tasks.append(
            TaskChange(task_id=one.task.task_id, outcome=outcome, detail=detail, before=dict(before), after=dict(after))
        )

    def _refuse(self, report: EditReport, name: str, step: RefusedEdit) -> None:
        report.tasks.append(TaskChange(task_id=name, outcome="refused", detail=step.detail))
        report.statuses.add(step.status)

    def _write_down(self, report: EditReport) -> None:
        changed = report.changed
        if self._dry_run or not changed:
            return
        subject = changed[0].task_id if len(changed) == 1 else f"{len(changed)} tasks"
        tasks = {
            one.task_id: {"outcome": one.outcome, "before": one.before, "after": one.after} for one in changed[:NOTED]
        }
        changes = {"count": len(changed), "unnamed": max(len(changed) - NOTED, 0), "tasks": tasks}
        with translated(self._settings.redis_url):
            report.entry_id = self._broker.journal.write(
                self._who, self._verb, subject, reason=self._reason, changes=changes
            )
