"""The JSON document of each verb as a model: scripts rely on it, `--json-schema` prints it, and a test checks it.

Most answers are models of the operations; the models here are those that a command assembles. Add a row to `ANSWERS`
for every new verb.
"""

from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from morag_queue.core.enums import AclRole
from morag_queue.core.model import Classification, Frozen, JournalEntry, LoadBalancingDecision
from morag_queue.core.routing.feasibility import Score
from morag_queue.operations.submit_report import SubmittedTask
from morag_queue.operations.task_editor import TaskChange
from morag_queue.watch.events import Event, Level

from .schema import MAY_BE_MISSING


class SourceFailure(Frozen):
    """A rejected source. `line` counts from 1; 0 for a source from the command line."""

    line: int
    source: str
    error: str


class SubmittedTaskResult(SubmittedTask):
    state: str = Field("", description="with --wait: the final state", json_schema_extra=MAY_BE_MISSING)
    error: str = Field("", description="with --wait: the error of a failed task", json_schema_extra=MAY_BE_MISSING)


class SubmitResult(Frozen):
    submission_id: str | None = Field(
        description="for --submission of tasks, task cancel, move and prio; null in a dry run"
    )
    submitted: int
    dry_run: bool = Field(False, json_schema_extra=MAY_BE_MISSING)
    tasks: tuple[SubmittedTaskResult, ...] = Field(
        (), description="omitted with --quiet", json_schema_extra=MAY_BE_MISSING
    )
    failed: tuple[SourceFailure, ...]
    error: str = Field("", description="the error that stopped the command early", json_schema_extra=MAY_BE_MISSING)
    uncertain: tuple[str, ...] = Field(
        (), description="ids of tasks for which the broker's answer was lost", json_schema_extra=MAY_BE_MISSING
    )


class ClassifiedSource(Frozen):
    source: str
    classification: Classification
    decision: LoadBalancingDecision
    queue: str
    lane: str
    level: int
    scores: tuple[Score, ...]


class ClassifyResult(Frozen):
    classified: tuple[ClassifiedSource, ...]
    failed: tuple[SourceFailure, ...]


class JournalPage(Frozen):
    entries: tuple[JournalEntry, ...] = Field(description="newest first")


class TaskEditResult(Frozen):
    """The outcome of cancelling, moving, reprioritising or retrying tasks. `journal` is the id of the journal entry."""

    verb: str
    dry_run: bool
    changed: int
    unchanged: int
    refused: int
    tasks: tuple[TaskChange, ...]
    journal: str | None


class DemoAccount(Frozen):
    attempted: int
    executed: int
    lost: int
    duplicated: int
    stuck: int
    urgent_wait_seconds: float | None
    batch_wait_seconds: float | None


class RefusedSource(Frozen):
    source: str
    error: str


class DemoResult(Frozen):
    account: DemoAccount
    killed_worker: str | None
    interrupted_tasks: tuple[str, ...]
    lost_tasks: tuple[str, ...]
    duplicated_tasks: tuple[str, ...]
    wait_seconds_by_priority: dict[str, float | None]
    refused: tuple[RefusedSource, ...]
    workers: dict[str, str]
    simulated: str
    seconds: float


class SettingValue(Frozen):
    value: Any
    origin: str


class ConfigFile(Frozen):
    file: str


class ConfigCheck(Frozen):
    """What was read. `changed` maps each setting that was given to its origin."""

    file: str | None
    profile: str | None
    unused_profiles: tuple[str, ...]
    variables: tuple[str, ...]
    changed: dict[str, str]


class ConfigResult(Frozen):
    file: str | None
    profile: str | None
    settings: dict[str, SettingValue]


class ExitCode(Frozen):
    exit: int
    name: str
    meaning: str


class ExitCodes(Frozen):
    exit_codes: tuple[ExitCode, ...]


class CompletionScript(Frozen):
    shell: str
    script: str


class AclRules(Frozen):
    """`rules` are those of ACL SETUSER; `reads` and `writes` patterns of keys; `command` creates the login `user`."""

    role: AclRole
    user: str | None
    commands: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    channels: tuple[str, ...]
    rules: tuple[str, ...]
    command: str | None


class LogLine(BaseModel):
    """One line of `watch`: an event of `watch/events.py` with its fields."""

    model_config = ConfigDict(extra="allow")

    at: float
    level: Level
    event: Event


_THIS_MODULE = __name__
ANSWERS = {
    "submit": f"{_THIS_MODULE}:SubmitResult",
    "classify": f"{_THIS_MODULE}:ClassifyResult",
    "rebalance": "morag_queue.operations.rebalance:RebalanceResult",
    "journal ls": f"{_THIS_MODULE}:JournalPage",
    "journal show": "morag_queue.core.model:JournalEntry",
    "journal undo": "morag_queue.operations.journal:UndoResult",
    "cordon": "morag_queue.operations.cordon:CordonResult",
    "uncordon": "morag_queue.operations.cordon:CordonResult",
    "drain": "morag_queue.operations.cordon:CordonResult",
    "failover": "morag_queue.operations.failover:FailoverResult",
    "watch": f"{_THIS_MODULE}:LogLine",
    "stats": "morag_queue.core.stats:FleetStats",
    "tasks": "morag_queue.operations.tasks:TaskPage",
    "task show": "morag_queue.operations.task:TaskDetails",
    "task why": "morag_queue.operations.task:TaskExplanation",
    "task cancel": f"{_THIS_MODULE}:TaskEditResult",
    "task move": f"{_THIS_MODULE}:TaskEditResult",
    "task prio": f"{_THIS_MODULE}:TaskEditResult",
    "task retry": f"{_THIS_MODULE}:TaskEditResult",
    "pause": "morag_queue.operations.pause:PauseResult",
    "resume": "morag_queue.operations.pause:PauseResult",
    "dead ls": "morag_queue.operations.dead_letters:DeadPage",
    "dead show": "morag_queue.operations.task:TaskDetails",
    "dead requeue": f"{_THIS_MODULE}:TaskEditResult",
    "dead drop": "morag_queue.operations.dead_letters:DropResult",
    "doctor": "morag_queue.operations.doctor:Diagnosis",
    "simulate": "morag_queue.simulate.result:SimulationResult",
    "demo": f"{_THIS_MODULE}:DemoResult",
    "config init": f"{_THIS_MODULE}:ConfigFile",
    "config check": f"{_THIS_MODULE}:ConfigCheck",
    "config show": f"{_THIS_MODULE}:ConfigResult",
    "acl": f"{_THIS_MODULE}:AclRules",
    "exit-codes": f"{_THIS_MODULE}:ExitCodes",
    "completion": f"{_THIS_MODULE}:CompletionScript",
}
"""Verb → the model of its document, or of each line for `watch` and `stats --live`."""
WITHOUT = frozenset({"worker", "dashboard"})
"""Verbs without a document: `worker` becomes a Celery process, `dashboard` prints Grafana's format."""


def answer_of(verb: str) -> type[BaseModel] | None:
    """Return the model of a verb's answer, or None."""
    location = ANSWERS.get(verb)
    if location is None:
        return None
    module, _, name = location.partition(":")
    model: type[BaseModel] = getattr(import_module(module), name)
    return model
