"""The options that verbs share, in one place, and the decorator that gives them to a verb."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from morag_queue.errors import ExitStatus, UsageError

from .context import CliContext, Shared, World

_OUTPUT: dict[str, Any] = {
    "json": Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")],
    "no_color": Annotated[bool, typer.Option("--no-color", help="No colour, as with NO_COLOR set.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Only the answer and errors.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")],
}
_FLEET: dict[str, Any] = {
    "redis_url": Annotated[
        str | None,
        typer.Option("--redis-url", metavar="URL", help="The broker: redis://, rediss://, unix:// or sentinel://."),
    ],
    "config": Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="Settings, instead of ./morag-queue.toml.")
    ],
}
_CHANGES: dict[str, Any] = {
    "dry_run": Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")],
    "yes": Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")],
    "reason": Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the journal.")],
}


def _print_schema(context: typer.Context, wanted: bool) -> None:
    """Before anything else is looked at: a schema needs no arguments, no settings and no broker."""
    if not wanted:
        return
    from morag_queue.view.answers import answer_of
    from morag_queue.view.output import dumps
    from morag_queue.view.schema import json_schema

    world: World = context.obj
    words = context.command_path.partition(" ")[2]
    model = answer_of(words)
    if model is None:
        raise UsageError(f"{words} prints no JSON document")
    world.answered = True
    world.stdout.write(dumps(json_schema(model), indent=2 if world.stdout.isatty() else None) + "\n")
    raise typer.Exit


_SCHEMA = Annotated[
    bool,
    typer.Option("--json-schema", is_eager=True, callback=_print_schema, help="Print the JSON schema of the answer."),
]

Command = Callable[..., ExitStatus | None]


def verb(*, fleet: bool = True, changes: bool = False) -> Callable[[Command], Callable[..., int]]:
    """Makes a command of a function whose first argument is the CliContext; the others are its own options.

    `fleet`: it talks to the broker and takes --redis-url and --config. `changes`: it takes --dry-run, --yes and
    --reason. The function returns an ExitStatus, or None for OK.
    """
    shared = {**(_CHANGES if changes else {}), **(_FLEET if fleet else {}), **_OUTPUT}

    def decorate(function: Command) -> Callable[..., int]:
        signature = inspect.signature(function, eval_str=True)
        _, *own = signature.parameters.values()

        @wraps(function)
        def command(typer_context: typer.Context, **values: Any) -> int:
            options = Shared(**{name: values.pop(name) for name in shared})
            values.pop("json_schema")
            return int(function(CliContext(typer_context.obj, options), **values) or ExitStatus.OK)

        added = [_parameter("typer_context", typer.Context), *own]
        added += [_parameter(name, kind, getattr(Shared, name)) for name, kind in shared.items()]
        added.append(_parameter("json_schema", _SCHEMA, False))
        command.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in added], return_annotation=int
        )
        command.__annotations__ = {one.name: one.annotation for one in added}
        return command

    return decorate


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
