"""`submit`: files and URLs to the fleet."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TextIO

import typer

from morag_queue.core.model import TaskState
from morag_queue.errors import ExitStatus, UsageError
from morag_queue.operations.submit_rows import Row, RowFailure, parse_lines, row_of

from .context import CliContext
from .options import verb
from .sources import (
    Force,
    Options,
    Priority,
    Queue,
    Recursive,
    Sources,
    Type,
    Worker,
    failures,
    rows,
    said,
    tell_failures,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.operations.submit import SubmitReport

_LOOK_EVERY_S = 0.25
_SHOWN_TASKS = 50
Numbered = Iterable[tuple[int, Row | RowFailure]]


@verb(changes=True)
def command(
    ctx: CliContext,
    sources: Sources = None,
    from_file: Annotated[
        str | None, typer.Option("--from", metavar="FILE|-", help="JSON lines, one a task; - is stdin.")
    ] = None,
    recursive: Recursive = False,
    content_type: Type = None,
    priority: Priority = None,
    option: Options = None,
    task: Annotated[str | None, typer.Option("--task", metavar="NAME", help="The Celery task to send.")] = None,
    queue: Queue = None,
    worker: Worker = None,
    task_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="The task's id, for one source.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all have ended.")] = False,
    force: Force = False,
) -> ExitStatus:
    """Send files and URLs to the fleet: each is read, classified, routed and queued.

    With --from, flags hold for the lines that do not say otherwise. An id that is still open is refused, so a bulk with
    ids of its own can be sent again while it has not ended.
    """
    from morag_queue.operations.submit import Submitter, note_submit

    _check(sources, from_file, task_id)
    fields = said(
        content_type=content_type, priority=priority, options=option, task=task, queue=queue, worker=worker,
        task_id=task_id,
    )  # fmt: skip
    given: Numbered
    with _lines(ctx, from_file) as lines:
        if from_file is None:
            given = list(rows(sources or [], recursive, fields))
            if task_id is not None and len(given) != 1:
                raise UsageError(f"--id names one task, and these are {len(given)} sources")
        else:
            given = parse_lines(lines, row_of(from_file, fields))
        submitter = Submitter(ctx.broker, ctx.settings, force=force)
        total = len(given) if isinstance(given, list) else None
        if ctx.options.dry_run:
            report = _would(submitter.prepare(given))
        else:
            with ctx.progress("submitting", total) as advance:
                report = submitter.submit(given, details=wait or not ctx.quiet, on_progress=advance)
            note_submit(ctx.broker, report, ctx.who, ctx.options.reason)
    try:
        states = _wait(ctx, report) if wait and report.tasks and not ctx.options.dry_run else {}
    except KeyboardInterrupt:
        _answer(ctx, report, {})  # the ids, by which to look again
        raise
    _answer(ctx, report, states)
    return _status(report, states)


def _check(sources: list[str] | None, from_file: str | None, task_id: str | None) -> None:
    if not sources and from_file is None:
        raise UsageError("nothing to submit: morag-queue submit PATH|URL…, or --from FILE (- is stdin)")
    if sources and from_file is not None:
        raise UsageError("submit takes sources or --from, not both")
    if from_file is not None and task_id is not None:
        raise UsageError('--id is for one source; a line of --from has its own "task_id"')


@contextmanager
def _lines(ctx: CliContext, from_file: str | None) -> Iterator[TextIO | BinaryIO]:
    """The lines of --from, as bytes where the stream has them: one that is no UTF-8 is that line's failure."""
    if from_file is None or from_file == "-":
        yield getattr(ctx.world.stdin, "buffer", ctx.world.stdin)
    else:
        with open(ctx.world.cwd / from_file, "rb") as file:
            yield file


def _would(prepared: Iterable[Any]) -> "SubmitReport":
    from morag_queue.operations.submit import SubmitReport, submitted

    report = SubmitReport()
    for one in prepared:
        if isinstance(one, RowFailure):
            report.failed.append(one)
        else:
            report.submitted += 1
            report.tasks.append(submitted(one))
    return report


def _wait(ctx: CliContext, report: "SubmitReport") -> Mapping[str, str]:
    """The last state of each task. Ctrl-C detaches: the tasks go on."""
    from morag_queue.operations.submit import wait_for

    ids = [task.task_id for task in report.tasks]
    try:
        with ctx.progress("waiting", len(ids)) as advance:
            ended = wait_for(ctx.broker, ids, lambda: sleep(_LOOK_EVERY_S), advance)
    except KeyboardInterrupt:
        again = f"task show {ids[0]}" if len(ids) == 1 else "tasks"
        ctx.warn(f"Detached: {len(ids)} tasks were submitted and go on. Look again with: morag-queue {again}")
        raise
    return ended


def _answer(ctx: CliContext, report: "SubmitReport", states: Mapping[str, str]) -> None:
    dry, quiet = ctx.options.dry_run, ctx.quiet
    answer: dict[str, Any] = {"submitted": 0 if dry else report.submitted}
    if dry:
        answer["dry_run"] = True
    if not quiet:
        answer["tasks"] = [_with_state(dict(task), states) for task in report.tasks]
    answer["failed"] = failures(report.failed)
    if report.broken is not None:
        answer |= {"error": str(report.broken), "uncertain": report.uncertain}

    def human() -> "RenderableType":
        from morag_queue.view.submit import submitted_view

        limit = _SHOWN_TASKS if ctx.console.is_terminal else None
        return submitted_view([] if quiet else report.tasks, _summary(report, states, dry), states, limit)

    if ctx.json or (report.submitted and not quiet):
        ctx.emit(answer, human)
    tell_failures(ctx, report.failed)
    if report.broken is not None:
        ctx.warn(f"error: {report.broken}")
        ctx.warn(
            f"{report.submitted} were queued before that; of the next {len(report.uncertain)} it is not known (--json "
            "names them). Rows with a task_id can all be sent again: what is open is refused; what has ended runs again"
        )


def _with_state(task: dict[str, Any], states: Mapping[str, str]) -> dict[str, Any]:
    return task | {"state": states[task["task_id"]]} if task["task_id"] in states else task


def _summary(report: "SubmitReport", states: Mapping[str, str], dry: bool) -> str:
    said_so = "would be submitted" if dry else "submitted"
    parts = [f"{report.submitted} {said_so}"]
    parts += [f"{len(report.failed)} failed"] if report.failed else []
    for word in sorted(set(states.values())):
        parts.append(f"{sum(state == word for state in states.values())} {word}")
    return ", ".join(parts)


def _status(report: "SubmitReport", states: Mapping[str, str]) -> ExitStatus:
    if report.exit_status is not ExitStatus.OK or not states:
        return report.exit_status
    completed = sum(state == TaskState.COMPLETED for state in states.values())
    if completed == len(states):
        return ExitStatus.OK
    return ExitStatus.PARTIAL if completed else ExitStatus.FAILED
