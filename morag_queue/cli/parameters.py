"""Arguments and options that several commands use, and the task filter built from the filter options."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.core.levels import parse_priority
from morag_queue.core.model import QueuePriority, TaskState
from morag_queue.errors import UsageError

if TYPE_CHECKING:
    from morag_queue.core.snapshot import Snapshot
    from morag_queue.core.task import TaskFilter


def priority_option(help_text: str) -> typer.models.OptionInfo:
    """Return a --priority option; its help is `help_text` and the names."""
    names = ", ".join(priority.name for priority in QueuePriority)
    option: typer.models.OptionInfo = typer.Option("--priority", metavar="P", help=f"{help_text}: {names}.")
    return option


WorkerArgument = Annotated[str, typer.Argument(metavar="W", help="Worker id or unique prefix.")]
QueueArgument = Annotated[str, typer.Argument(metavar="Q", help="Queue name or unique prefix.")]
TaskArgument = Annotated[str, typer.Argument(metavar="ID", help="Task id or unique prefix.")]
TaskArguments = Annotated[
    list[str] | None, typer.Argument(metavar="ID…", show_default=False, help="Task ids or unique prefixes.")
]
EntryArgument = Annotated[
    str, typer.Argument(metavar="ENTRY", help="Journal entry id, plan id, or unique prefix of either.")
]
Limit = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="Maximum number of tasks; 0 for all.")]

QueueFilter = Annotated[str | None, typer.Option("--queue", metavar="Q", help="Only tasks in the lanes of this queue.")]
LaneFilter = Annotated[str | None, typer.Option("--lane", metavar="L", help="Only tasks in this lane.")]
WorkerFilter = Annotated[
    str | None,
    typer.Option("--worker", metavar="W", help="Only tasks held by, run by or in the lanes of this worker."),
]
StateFilter = Annotated[
    TaskState | None, typer.Option("--state", case_sensitive=False, help="Only tasks in this state.")
]
PriorityFilter = Annotated[str | None, priority_option("Only tasks of this priority")]
AgeFilter = Annotated[
    str | None,
    typer.Option("--age", metavar="DURATION", help="Only tasks waiting, running or ended for at least this long."),
]
NameFilter = Annotated[
    str | None, typer.Option("--name", metavar="TEXT", help="Only tasks whose name or source contains this text.")
]

SubmissionFilter = Annotated[
    str | None, typer.Option("--submission", metavar="S", help="Only tasks of this submission; `submit` prints its id.")
]


def task_filter(
    snapshot: "Snapshot",
    queue: str | None,
    lane: str | None,
    worker: str | None,
    state: TaskState | None,
    priority: str | None,
    age: str | None,
    name: str | None,
    submission: str | None,
) -> "TaskFilter":
    """Build the filter; queue, lane and worker may be prefixes. Raises UsageError and NotFound."""
    from morag_queue.core.task import TaskFilter
    from morag_queue.operations.names import resolve, resolve_queue

    lanes = [view.lane for view in snapshot.lanes]
    workers = {view.info.worker for view in snapshot.workers} | {view.worker for view in snapshot.lanes if view.worker}
    return TaskFilter(
        queue=None if queue is None else resolve_queue(queue),
        lane=None if lane is None else resolve("lane", lane, lanes),
        worker=None if worker is None else resolve("worker", worker, workers),
        state=state,
        priority=None if priority is None else priority_named(priority),
        older_than_seconds=age_seconds(age),
        name=name,
        submission=submission,
    )


def age_seconds(age: str | None) -> float | None:
    """Parse the value of --age. Raises UsageError."""
    from morag_queue.view.text import parse_duration

    return None if age is None else parse_duration(age, "--age")


def priority_named(name: str) -> QueuePriority:
    """Parse a priority name. Raises UsageError that lists the valid names."""
    try:
        return parse_priority(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
