"""`submit`: classify, route and queue files and URLs."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TextIO

import typer

from morag_queue.core.words import count_of
from morag_queue.errors import ExitStatus, UsageError
from morag_queue.operations.submit_rows import Row, RowFailure, parse_lines, row_of

from .context import CliContext
from .options import verb
from .sources import (
    AllowCpu,
    Options,
    Priority,
    Queue,
    Recursive,
    Sources,
    Type,
    Worker,
    failures_as_json,
    row_fields,
    source_rows,
    warn_failures,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.operations.submit_report import SubmitReport
    from morag_queue.operations.submit_wait import Outcome

_POLL_SECONDS = 0.25
_SHOWN_TASKS = 50
_SHOWN_FAILURES = 20


@verb(changes=True)
def submit(
    ctx: CliContext,
    sources: Sources = None,
    from_file: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE|-", help="Read tasks as JSON lines from this file; - is stdin."),
    ] = None,
    recursive: Recursive = False,
    content_type: Type = None,
    priority: Priority = None,
    option: Options = None,
    task: Annotated[str | None, typer.Option("--task", metavar="NAME", help="Celery task to send.")] = None,
    queue: Queue = None,
    worker: Worker = None,
    task_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Task id of a single source.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all tasks have ended.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Allow pinning to a worker that cannot take the task now.")
    ] = False,
    allow_cpu: AllowCpu = False,
) -> ExitStatus:
    """Classify, route and queue files and URLs.

    The answer names the submission: `tasks`, `task cancel`, `task move` and `task prio` take --submission ID.
    With --from, flags are the defaults for lines that do not set the field. A task id that is still open is
    refused, so a bulk submit that sets its ids can be repeated safely until its tasks have ended.
    A task that requires a GPU never enters a lane that a worker without one reads, unless --allow-cpu is given.
    """
    from morag_queue.operations.submit import Submitter
    from morag_queue.operations.submit_report import note_submit

    _check(sources, from_file, task_id)
    fields = row_fields(
        content_type=content_type, priority=priority, options=option, task=task, queue=queue, worker=worker,
        task_id=task_id,
    )  # fmt: skip
    rows: Iterable[tuple[int, Row | RowFailure]]
    with _open_lines(ctx, from_file) as lines:
        if from_file is None:
            rows = list(source_rows(sources or [], recursive, fields))
            if task_id is not None and len(rows) != 1:
                raise UsageError(f"--id names one task, but {len(rows)} sources were given; pass one source")
        else:
            rows = parse_lines(lines, row_of(from_file, fields))
        submitter = Submitter(ctx.quick_broker, ctx.settings, force=force, allow_cpu=allow_cpu)
        if ctx.options.dry_run:
            report = _preview(submitter.prepare(rows))
        else:
            with ctx.progress("submitting", len(rows) if isinstance(rows, list) else None) as advance:
                report = submitter.submit(
                    rows, details=wait or not ctx.quiet, on_progress=advance, who=ctx.user, reason=ctx.options.reason
                )
            note_submit(ctx.quick_broker, report, ctx.user, ctx.options.reason)
    for warning in submitter.warnings:
        ctx.warn(f"warning: {warning}")
    try:
        outcomes = _wait(ctx, report) if wait and report.tasks and not ctx.options.dry_run else {}
    except KeyboardInterrupt:
        _answer(ctx, report, {})  # the user needs the ids to find the tasks again
        raise
    _answer(ctx, report, outcomes)
    return _status(report, outcomes)


def _check(sources: list[str] | None, from_file: str | None, task_id: str | None) -> None:
    if not sources and from_file is None:
        raise UsageError("nothing to submit: pass files or URLs, or --from FILE (- is stdin)")
    if sources and from_file is not None:
        raise UsageError("submit takes sources or --from, not both")
    if from_file is not None and task_id is not None:
        raise UsageError('--id is for a single source; with --from, set "task_id" in each line')


@contextmanager
def _open_lines(ctx: CliContext, from_file: str | None) -> Iterator[TextIO | BinaryIO]:
    """Open --from as bytes if the stream supports it, so that invalid UTF-8 fails its line and not the command."""
    if from_file is None or from_file == "-":
        yield getattr(ctx.environment.stdin, "buffer", ctx.environment.stdin)
    else:
        with open(ctx.environment.cwd / from_file, "rb") as file:
            yield file


def _preview(prepared: Iterable[Any]) -> "SubmitReport":
    from morag_queue.operations.submit_report import SubmitReport, submitted

    report = SubmitReport()
    for item in prepared:
        if isinstance(item, RowFailure):
            report.failed.append(item)
        else:
            report.submitted += 1
            report.tasks.append(submitted(item))
    return report


def _wait(ctx: CliContext, report: "SubmitReport") -> Mapping[str, "Outcome"]:
    """Wait until all tasks have ended and return their outcomes by id. Ctrl-C leaves the tasks running."""
    from morag_queue.operations.submit_wait import wait_for

    ids = [task.task_id for task in report.tasks]
    try:
        with ctx.progress("waiting", len(ids)) as advance:
            outcomes = wait_for(ctx.broker, ids, lambda: sleep(_POLL_SECONDS), advance)
    except KeyboardInterrupt:
        command = f"task show {ids[0]}" if len(ids) == 1 else f"tasks --submission {report.submission_id}"
        count = count_of(len(ids), "task")
        ctx.warn(f"Detached: {count} submitted, nothing cancelled. Check progress with: morag-queue {command}")
        raise
    return outcomes


def _answer(ctx: CliContext, report: "SubmitReport", outcomes: Mapping[str, "Outcome"]) -> None:
    dry_run, quiet = ctx.options.dry_run, ctx.quiet
    answer: dict[str, Any] = {
        "submission_id": report.submission_id,
        "submitted": 0 if dry_run else report.submitted,
    }
    if dry_run:
        answer["dry_run"] = True
    if not quiet:
        answer["tasks"] = [_with_outcome(dict(task), outcomes) for task in report.tasks]
    answer["failed"] = failures_as_json(report.failed)
    if report.broken is not None:
        answer |= {"error": str(report.broken), "uncertain": report.uncertain}

    def human() -> "RenderableType":
        from morag_queue.view.submit import submit_view

        limit = _SHOWN_TASKS if ctx.console.is_terminal else None
        states = {task_id: outcome.state for task_id, outcome in outcomes.items()}
        return submit_view([] if quiet else report.tasks, _summary(report, states, dry_run), states, limit)

    if ctx.json or (report.submitted and not quiet):
        ctx.emit(answer, human)
    warn_failures(ctx, report.failed)
    _warn_outcomes(ctx, report, outcomes)
    if report.broken is not None:
        ctx.warn(f"error: {report.broken}")
        ctx.warn(
            f"{report.submitted} queued before the error; {len(report.uncertain)} may or may not be queued; --json "
            "lists their ids. Rows with a task_id can be submitted again: open ids are refused, ended tasks run again. "
            f"To take all back: morag-queue task cancel --submission {report.submission_id}"
        )


def _warn_outcomes(ctx: CliContext, report: "SubmitReport", outcomes: Mapping[str, "Outcome"]) -> None:
    """Tell why tasks did not complete; --json has all of them."""
    from morag_queue.view.text import more_line

    failed = [task for task in report.tasks if task.task_id in outcomes and not outcomes[task.task_id].is_success]
    for task in failed[:_SHOWN_FAILURES]:
        outcome = outcomes[task.task_id]
        ctx.warn(f"{outcome.state}: {task.source} ({task.task_id}): {outcome.error or 'no error was recorded'}")
    if len(failed) > _SHOWN_FAILURES:
        ctx.warn(more_line(len(failed) - _SHOWN_FAILURES))


def _with_outcome(task: dict[str, Any], outcomes: Mapping[str, "Outcome"]) -> dict[str, Any]:
    outcome = outcomes.get(task["task_id"])
    return task | ({"state": outcome.state, "error": outcome.error} if outcome is not None else {})


def _summary(report: "SubmitReport", states: Mapping[str, str], dry_run: bool) -> str:
    parts = [f"{report.submitted} {'would be submitted' if dry_run else 'submitted'}"]
    parts += [f"{len(report.failed)} failed"] if report.failed else []
    for name in sorted(set(states.values())):
        parts.append(f"{sum(state == name for state in states.values())} {name}")
    return ", ".join(parts) + (f"; submission {report.submission_id}" if report.submission_id else "")


def _status(report: "SubmitReport", outcomes: Mapping[str, "Outcome"]) -> ExitStatus:
    if report.exit_status is not ExitStatus.OK or not outcomes:
        return report.exit_status
    completed = sum(outcome.is_success for outcome in outcomes.values())
    if completed == len(outcomes):
        return ExitStatus.OK
    return ExitStatus.PARTIAL if completed else ExitStatus.FAILED
