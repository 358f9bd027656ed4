"""Commands that print reference output and need no fleet: `exit-codes`, `completion`, `dashboard`."""

from enum import StrEnum
from importlib.resources import files
from typing import Annotated

import typer

from morag_queue.errors import ExitStatus

from .context import CliContext
from .options import verb

EXIT_STATUS_MEANINGS = {
    ExitStatus.OK: "done, or nothing to do",
    ExitStatus.FAILED: "failed",
    ExitStatus.USAGE: "wrong usage",
    ExitStatus.PARTIAL: "partly done: some inputs failed, or some workers did not answer",
    ExitStatus.CHANGES: "with --exit-code: the plan has changes",
    ExitStatus.REFUSED: "refused: a safety check failed or the plan no longer fits; the message names the override",
    ExitStatus.DEADLINE: "the deadline passed with work remaining",
    ExitStatus.LEASE_HELD: "another process holds the lease",
    ExitStatus.NOT_FOUND: "no such worker, task or queue",
    ExitStatus.UNREACHABLE: "the broker cannot be reached",
    ExitStatus.INTERRUPTED: "interrupted",
}


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@verb(uses_broker=False)
def exit_codes(ctx: CliContext) -> None:
    """List the exit codes and their meanings. All commands use the same codes."""
    rows = [
        {"exit": int(status), "name": status.name.lower(), "meaning": EXIT_STATUS_MEANINGS[status]}
        for status in ExitStatus
    ]
    ctx.emit({"exit_codes": rows}, lambda: "\n".join(f"{row['exit']:>3}  {row['meaning']}" for row in rows))


@verb(uses_broker=False)
def completion(
    ctx: CliContext, shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]
) -> None:
    """Print a shell completion script, for example: source <(morag-queue completion bash)"""
    from .completion_scripts import SCRIPTS

    text = SCRIPTS[shell]
    ctx.emit({"shell": shell, "script": text}, lambda: text.rstrip("\n"))


@verb(uses_broker=False)
def dashboard(ctx: CliContext) -> None:
    """Print a Grafana dashboard (JSON) for the metrics of `watch --metrics-port`.

    Import it in Grafana, or save it in a provisioning directory: morag-queue dashboard > morag-queue.json
    """
    ctx.environment.has_answered = True
    ctx.stdout.write(files("morag_queue").joinpath("data", "grafana.json").read_text("utf-8"))
