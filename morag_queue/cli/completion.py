"""`completion SHELL`: the script that teaches a shell our verbs and options; `completions/` holds its output."""

from enum import StrEnum
from typing import Annotated

import typer

from .context import CliContext
from .options import verb


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def script(shell: Shell) -> str:
    """typer's script for the shell: it asks the installed command, so it need not change when a verb is added."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    from .run import COMPLETION_VARIABLE, PROGRAM

    text: str = get_completion_script(prog_name=PROGRAM, complete_var=COMPLETION_VARIABLE, shell=shell.value)
    return text + "\n"


@verb(fleet=False)
def command(ctx: CliContext, shell: Annotated[Shell, typer.Argument(help="Which shell.")]) -> None:
    """Print the completion script of a shell, for example: source <(morag-queue completion bash)"""
    text = script(shell)
    ctx.emit({"shell": shell, "script": text}, lambda: text.rstrip("\n"))
