"""What each verb answers with --json, as a model: scripts rely on it, `--json-schema` prints it, a test holds it true.

Most answers are the models that the verbs themselves give; here are those that a command puts together. A new verb has
a row in `ANSWERS`.
"""

from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from morag_queue.broker.contract import JournalEntry
from morag_queue.core.model import Classification, Frozen, LoadBalancingDecision
from morag_queue.core.routing.feasibility import Score
from morag_queue.operations.submit import SubmittedTask
from morag_queue.operations.task_editor import TaskChange
from morag_queue.watch.events import Event, Level

from .schema import MAY_BE_MISSING


class Failed(Frozen):
    """A source that was not taken. `line` counts from 1, 0 where it is not of a file."""

    line: int
    source: str
    error: str


class WaitedTask(SubmittedTask):
    state: str = Field("", description="with --wait: how it ended", json_schema_extra=MAY_BE_MISSING)


class Submitted(Frozen):
    submitted: int
    dry_run: bool = Field(False, json_schema_extra=MAY_BE_MISSING)
    tasks: tuple[WaitedTask, ...] = Field((), description="not with --quiet", json_schema_extra=MAY_BE_MISSING)
    failed: tuple[Failed, ...]
    error: str = Field("", description="what ended it before its end", json_schema_extra=MAY_BE_MISSING)
    uncertain: tuple[str, ...] = Field(
        (), description="ids of which the broker's answer was lost", json_schema_extra=MAY_BE_MISSING
    )


class Classified(Frozen):
    source: str
    classification: Classification
    decision: LoadBalancingDecision
    queue: str
    lane: str
    level: int
    scores: tuple[Score, ...]


class Classifications(Frozen):
    classified: tuple[Classified, ...]
    failed: tuple[Failed, ...]


class Journaled(Frozen):
    entries: tuple[JournalEntry, ...] = Field(description="the newest first")


class Steered(Frozen):
    """What became of tasks that were to be cancelled, moved, prioritised or run again. `journal` is the entry's id."""

    verb: str
    dry_run: bool
    changed: int
    unchanged: int
    refused: int
    tasks: tuple[TaskChange, ...]
    journal: str | None


class Account(Frozen):
    attempted: int
    executed: int
    lost: int
    duplicated: int
    stuck: int
    urgent_wait_seconds: float | None
    batch_wait_seconds: float | None


class Unsent(Frozen):
    source: str
    error: str


class Demonstrated(Frozen):
    account: Account
    killed_worker: str | None
    interrupted_tasks: tuple[str, ...]
    lost_tasks: tuple[str, ...]
    duplicated_tasks: tuple[str, ...]
    wait_seconds_by_priority: dict[str, float | None]
    refused: tuple[Unsent, ...]
    workers: dict[str, str]
    simulated: str
    seconds: float


class Setting(Frozen):
    value: Any
    origin: str


class Configured(Frozen):
    file: str | None
    settings: dict[str, Setting]


class ExitCode(Frozen):
    exit: int
    name: str
    meaning: str


class ExitCodes(Frozen):
    exit_codes: tuple[ExitCode, ...]


class Completion(Frozen):
    shell: str
    script: str


class LogLine(BaseModel):
    """One line of `watch`: an event of the table in `events.py`, and its fields beside these."""

    model_config = ConfigDict(extra="allow")

    at: float
    level: Level
    event: Event


_HERE = __name__
ANSWERS = {
    "submit": f"{_HERE}:Submitted",
    "classify": f"{_HERE}:Classifications",
    "rebalance": "morag_queue.operations.rebalance:RebalanceResult",
    "journal ls": f"{_HERE}:Journaled",
    "journal show": "morag_queue.broker.contract:JournalEntry",
    "journal undo": "morag_queue.operations.journal:UndoResult",
    "cordon": "morag_queue.operations.cordon:CordonResult",
    "uncordon": "morag_queue.operations.cordon:CordonResult",
    "drain": "morag_queue.operations.cordon:CordonResult",
    "failover": "morag_queue.operations.failover:FailoverResult",
    "watch": f"{_HERE}:LogLine",
    "stats": "morag_queue.core.model:FleetStats",
    "tasks": "morag_queue.operations.tasks:TaskPage",
    "task show": "morag_queue.operations.task:TaskDetails",
    "task why": "morag_queue.operations.task:TaskExplanation",
    "task cancel": f"{_HERE}:Steered",
    "task move": f"{_HERE}:Steered",
    "task prio": f"{_HERE}:Steered",
    "task retry": f"{_HERE}:Steered",
    "pause": "morag_queue.operations.pause:PauseResult",
    "resume": "morag_queue.operations.pause:PauseResult",
    "dead ls": "morag_queue.operations.dead_letters:DeadPage",
    "dead show": "morag_queue.operations.task:TaskDetails",
    "dead requeue": f"{_HERE}:Steered",
    "dead drop": "morag_queue.operations.dead_letters:DropResult",
    "doctor": "morag_queue.operations.doctor:Diagnosis",
    "demo": f"{_HERE}:Demonstrated",
    "config show": f"{_HERE}:Configured",
    "exit-codes": f"{_HERE}:ExitCodes",
    "completion": f"{_HERE}:Completion",
}
"""The words of a verb -> where the model of its document is, or of each line, for `watch` and `stats --live`."""
WITHOUT = frozenset({"worker", "dashboard"})
"""Verbs that print no document of ours: Celery takes the place of the process; a dashboard is Grafana's."""


def answer_of(words: str) -> type[BaseModel] | None:
    """The model of a verb's answer; None for one that has none."""
    where = ANSWERS.get(words)
    if where is None:
        return None
    module, _, name = where.partition(":")
    model: type[BaseModel] = getattr(import_module(module), name)
    return model
