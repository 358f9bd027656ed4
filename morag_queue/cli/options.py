"""The options that all commands share, and the decorator that adds them to a command."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from morag_queue.errors import ExitStatus, UsageError

from .context import CliContext, CommonOptions, Environment

_OUTPUT: dict[str, Any] = {
    "json": Annotated[bool, typer.Option("--json", help="Print one JSON document.")],
    "no_color": Annotated[bool, typer.Option("--no-color", help="Disable colour, as NO_COLOR does.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Print only the answer, warnings and errors.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}
_BROKER: dict[str, Any] = {
    "redis_url": Annotated[
        str | None,
        typer.Option("--redis-url", metavar="URL", help="Broker URL: redis://, rediss://, unix:// or sentinel://."),
    ],
    "config": Annotated[str | None, typer.Option("--config", metavar="FILE", help="Read settings from this file.")],
    "profile": Annotated[
        str | None, typer.Option("--profile", metavar="NAME", help="Use this profile of the settings file.")
    ],
}
_CHANGE: dict[str, Any] = {
    "dry_run": Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")],
    "yes": Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")],
    "reason": Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason to record in the journal.")],
}


def _print_schema(context: typer.Context, wanted: bool) -> None:
    """Print the schema before other options are parsed: it needs no arguments, settings or broker."""
    if not wanted:
        return
    from morag_queue.view.answers import answer_of
    from morag_queue.view.output import dumps
    from morag_queue.view.schema import json_schema

    environment: Environment = context.obj
    command = context.command_path.partition(" ")[2]
    model = answer_of(command)
    if model is None:
        raise UsageError(f"{command} prints no JSON document, so it has no schema")
    environment.has_answered = True
    indent = 2 if environment.stdout.isatty() else None
    environment.stdout.write(dumps(json_schema(model), indent=indent) + "\n")
    raise typer.Exit


_SCHEMA = Annotated[
    bool,
    typer.Option("--json-schema", is_eager=True, callback=_print_schema, help="Print the JSON schema of the answer."),
]

Command = Callable[..., ExitStatus | None]


def verb(*, uses_broker: bool = True, changes: bool = False) -> Callable[[Command], Callable[..., int]]:
    """Decorate a function whose first parameter is the CliContext and whose other parameters are its own options.

    `uses_broker` adds --redis-url and --config; `changes` adds --dry-run, --yes and --reason. The function returns an
    ExitStatus, or None for OK.
    """
    shared = {**(_CHANGE if changes else {}), **(_BROKER if uses_broker else {}), **_OUTPUT}

    def decorate(function: Command) -> Callable[..., int]:
        signature = inspect.signature(function, eval_str=True)
        _, *own = signature.parameters.values()

        @wraps(function)
        def command(typer_context: typer.Context, **values: Any) -> int:
            options = CommonOptions(**{name: values.pop(name) for name in shared})
            values.pop("json_schema")
            ctx = CliContext(typer_context.obj, options)
            try:
                return int(function(ctx, **values) or ExitStatus.OK)
            finally:
                ctx.warn_of_broken_values()

        parameters = [_parameter("typer_context", typer.Context), *own]
        parameters += [_parameter(name, kind, getattr(CommonOptions, name)) for name, kind in shared.items()]
        parameters.append(_parameter("json_schema", _SCHEMA, False))
        command.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters],
            return_annotation=int,
        )
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
