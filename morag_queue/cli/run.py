"""From a command line to an exit status: finds the verb, runs it, turns every error into a message and a status."""

import os
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from morag_queue.errors import ExitStatus

from .context import World

PROGRAM = "morag-queue"
COMPLETION_VARIABLE = "_MORAG_QUEUE_COMPLETE"
_PLAIN: dict[str, Any] = {"rich_markup_mode": None, "add_completion": False}  # help by rich costs 60 ms


class Verb(TyperCommand):
    """A row of the table; the module that does the work is imported when its arguments are parsed."""

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name, help=summary, rich_markup_mode=None)
        self.module = module

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        # The context names the loaded command as its own, and that one is invoked.
        return self.load().make_context(info_name, args, parent, **extra)

    def load(self) -> TyperCommand | TyperGroup:
        module = import_module(self.module)
        app = typer.Typer(help=self.help, **_PLAIN)
        if hasattr(module, "command"):
            app.command(self.name)(module.command)
            return typer.main.get_command(app)  # type: ignore[return-value]
        for word, function in module.commands.items():
            app.command(word)(function)
        return typer.main.get_group(app)


def group(verbs: Mapping[str, tuple[str, str]]) -> TyperGroup:
    """The whole command line, with no verb imported."""
    app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]}, **_PLAIN)
    app.callback(invoke_without_command=True)(_root)
    whole = typer.main.get_group(app)
    for name, (module, summary) in verbs.items():
        whole.add_command(Verb(name, module, summary))
    return whole


def run(verbs: Mapping[str, tuple[str, str]], args: list[str], world: World) -> int:
    """The exit status of one command line in a world."""
    if COMPLETION_VARIABLE in world.env:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        status = group(verbs).main(args, prog_name=PROGRAM, standalone_mode=False, obj=world)
        if status == ExitStatus.INTERRUPTED:  # typer turns Ctrl-C into this status
            raise KeyboardInterrupt
        status = int(status or 0)
        world.stdout.flush()
    except BrokenPipeError:
        return _reader_is_gone(world)
    except SystemExit as end:  # typer's way out of completion, and with 1 of a closed pipe
        return _reader_is_gone(world) if end.code == ExitStatus.FAILED else int(end.code or 0)
    except BaseException as error:  # noqa: BLE001  the one door: whatever it was, the user gets a message and a status
        from .failure import report

        return report(error, args, world)
    return status


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """The operator's tool for Celery-on-Redis fleets.

    Every verb takes --help. Settings come from flags, MORAG_QUEUE_* and REDIS_URL, morag-queue.toml and defaults:
    `morag-queue config show` tells which.
    """
    world: World = context.obj
    if version:
        from importlib.metadata import version as installed

        world.stdout.write(f"{PROGRAM} {installed(PROGRAM)}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        world.stdout.write(context.get_help() + "\n")


def _reader_is_gone(world: World) -> int:
    """`morag-queue tasks | head`: no message, and nothing left that the interpreter would try to flush."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:  # a stream in memory has no descriptor
        os.dup2(nowhere.fileno(), world.stdout.fileno())
    return ExitStatus.FAILED
