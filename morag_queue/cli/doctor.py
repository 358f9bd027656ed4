"""`doctor`: what is wrong with this fleet."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import ExitStatus

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from rich.console import RenderableType


@verb()
def command(
    ctx: CliContext,
    strict: Annotated[bool, typer.Option("--strict", help="End with 1 on warnings, too.")] = False,
) -> ExitStatus:
    """Look for what is wrong with the fleet: server, lanes, workers and their settings. Changes nothing.

    Ends with 0 where all is well or only warnings and hints were found, with 1 on an error: work is lost, stuck or not
    done. Each finding has a code that does not change, and says what to do.
    """
    from morag_queue.core.doctor import Severity
    from morag_queue.operations.doctor import doctor

    answer = doctor(ctx.broker)

    def human() -> "RenderableType":
        from morag_queue.view.doctor import diagnosis_view

        return diagnosis_view(answer)

    if answer.findings or ctx.json or not ctx.quiet:
        ctx.emit(answer, human)
    bad = answer.has(Severity.ERROR) or (strict and answer.has(Severity.WARNING))
    return ExitStatus.FAILED if bad else ExitStatus.OK
