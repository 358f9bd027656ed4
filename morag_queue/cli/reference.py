"""Commands that print reference output and need no fleet: `config show`, `exit-codes`, `completion`, `dashboard`."""

import json
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


@verb()
def config_show(ctx: CliContext) -> None:
    """Show each setting, its value and its origin.

    Secrets are masked. The output is valid TOML: fill in the secrets to use it as a morag-queue.toml.
    """
    from morag_queue.settings.sources import leaves, mask_secrets
    from morag_queue.view.output import plain
    from morag_queue.view.text import safe

    loaded = ctx.loaded
    values = {key: plain(mask_secrets(key, value)) for key, value in leaves(loaded.settings)}
    ctx.emit(
        {
            "file": str(loaded.file) if loaded.file else None,
            "settings": {key: {"value": value, "origin": loaded.origins[key]} for key, value in values.items()},
        },
        lambda: "\n".join(
            f"{key} = {json.dumps(value)}  # {safe(loaded.origins[key])}" for key, value in values.items()
        ),
    )


@verb(uses_broker=False)
def exit_codes(ctx: CliContext) -> None:
    """List the exit codes and their meanings. All commands use the same codes."""
    rows = [
        {"exit": int(status), "name": status.name.lower(), "meaning": EXIT_STATUS_MEANINGS[status]}
        for status in ExitStatus
    ]
    ctx.emit({"exit_codes": rows}, lambda: "\n".join(f"{row['exit']:>3}  {row['meaning']}" for row in rows))


def completion_script(shell: Shell) -> str:
    """Return Typer's script for the shell. It queries the installed command, so it does not change when verbs do."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    from .run import COMPLETION_VARIABLE, PROGRAM

    text: str = get_completion_script(prog_name=PROGRAM, complete_var=COMPLETION_VARIABLE, shell=shell.value)
    return text + "\n"


@verb(uses_broker=False)
def completion(
    ctx: CliContext, shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]
) -> None:
    """Print a shell completion script, for example: source <(morag-queue completion bash)"""
    text = completion_script(shell)
    ctx.emit({"shell": shell, "script": text}, lambda: text.rstrip("\n"))


@verb(uses_broker=False)
def dashboard(ctx: CliContext) -> None:
    """Print a Grafana dashboard (JSON) for the metrics of `watch --metrics-port`.

    Import it in Grafana, or save it in a provisioning directory: morag-queue dashboard > morag-queue.json
    """
    ctx.environment.has_answered = True
    ctx.stdout.write(files("morag_queue").joinpath("data", "grafana.json").read_text("utf-8"))


CONFIG_SUBCOMMANDS = {"show": config_show}
