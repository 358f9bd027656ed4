"""`doctor`: diagnose the fleet."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import ExitStatus

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from rich.console import RenderableType


@verb()
def doctor(
    ctx: CliContext,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 on warnings as well.")] = False,
    leaving: Annotated[
        bool, typer.Option("--leaving", help="Instead, list what to do before morag-queue is uninstalled, in order.")
    ] = False,
) -> ExitStatus:
    """Check the server, lanes, workers and settings for problems, and change nothing.

    Each finding has a stable code and a remedy. Exits with 1 on an error (work is lost, stuck or not being done), and
    with 0 on warnings and hints.
    """
    from morag_queue.core.doctor import Severity
    from morag_queue.operations import doctor as operations

    diagnosis = operations.leaving(ctx.broker) if leaving else operations.doctor(ctx.broker)

    def human() -> "RenderableType":
        from morag_queue.view.doctor import diagnosis_view

        none = "Plain Celery workers find everything: morag-queue can be uninstalled."
        return diagnosis_view(diagnosis, none=none if leaving else "No problems found.")

    if diagnosis.findings or ctx.json or not ctx.quiet:
        ctx.emit(diagnosis, human)
    has_failed = diagnosis.has(Severity.ERROR) or (strict and diagnosis.has(Severity.WARNING))
    return ExitStatus.FAILED if has_failed else ExitStatus.OK
