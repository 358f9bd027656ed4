"""Run a command line: find the verb, run it, and turn every error into a message and an exit status."""

import os
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from morag_queue.errors import ExitStatus

from .context import Environment

PROGRAM = "morag-queue"
_PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,  # rich help costs 60 ms
    "add_completion": False,
    "subcommand_metavar": "COMMAND [ARGS]...",
}

VerbTable = Mapping[str, tuple[str, str]]


class VerbGroup(TyperGroup):
    """A group whose error for an unknown command suggests one. Typer or click add none, one or two suggestions."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            near = ", ".join(map(repr, get_close_matches(name, self.commands)))
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {near}?" if near else ""))
        return super().resolve_command(ctx, args)


class LazyVerb(TyperCommand):
    """A row of the verb table. Its module is imported when its arguments are parsed."""

    def __init__(self, name: str, target: str, summary: str) -> None:
        super().__init__(name, help=summary, rich_markup_mode=None)
        self.target = target

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        # The context refers to the loaded command, which is therefore the one that typer invokes.
        return self.load().make_context(info_name, args, parent, **extra)

    def load(self) -> TyperCommand | TyperGroup:
        module, _, attribute = self.target.partition(":")
        loaded = getattr(import_module(module), attribute)
        app = typer.Typer(cls=VerbGroup, help=self.help, **_PLAIN)
        if not isinstance(loaded, Mapping):
            app.command(self.name)(loaded)
            return typer.main.get_command(app)  # type: ignore[return-value]
        for name, function in loaded.items():
            app.command(name)(function)
        return typer.main.get_group(app)


def build_group(verbs: VerbTable) -> TyperGroup:
    """Build the root command with all verbs, importing none of them."""
    app = typer.Typer(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]}, **_PLAIN)
    app.callback(invoke_without_command=True)(_root)
    group = typer.main.get_group(app)
    for name, (target, summary) in verbs.items():
        group.add_command(LazyVerb(name, target, summary))
    return group


def run(verbs: VerbTable, args: list[str], environment: Environment) -> int:
    """Run one command line and return its exit status."""
    try:
        status = build_group(verbs).main(args, prog_name=PROGRAM, standalone_mode=False, obj=environment)
        if status == ExitStatus.INTERRUPTED:  # typer turns Ctrl-C into this status
            raise KeyboardInterrupt
        status = int(status or 0)
        environment.stdout.flush()
    except BrokenPipeError:
        return _abandon_stdout(environment)
    except SystemExit as end:  # raised by typer, with status 1 for a closed pipe
        return _abandon_stdout(environment) if end.code == ExitStatus.FAILED else int(end.code or 0)
    except BaseException as error:  # noqa: BLE001  every error must become a message and an exit status
        from .failure import report

        return report(error, args, environment)
    return status


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Operate Celery fleets on Redis or Valkey.

    Settings come from flags, MORAG_QUEUE_* and REDIS_URL, a settings file and defaults; `morag-queue config show`
    prints the origin of each. Every command has --help.
    """
    environment: Environment = context.obj
    if version:
        from importlib.metadata import version as installed

        environment.stdout.write(f"{PROGRAM} {installed(PROGRAM)}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        environment.stdout.write(context.get_help() + "\n")


def _abandon_stdout(environment: Environment) -> int:
    """Redirect stdout to /dev/null after a closed pipe (`tasks | head`), so that the final flush cannot fail."""
    with suppress(OSError), open(os.devnull, "wb") as devnull:  # in-memory streams have no file descriptor
        os.dup2(devnull.fileno(), environment.stdout.fileno())
    return ExitStatus.FAILED
