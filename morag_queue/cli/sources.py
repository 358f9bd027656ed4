"""The options by which `submit` and `classify` say what a source is, and the rows that come out of them."""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from morag_queue.core.levels import parse_priority
from morag_queue.core.model import ContentType, QueuePriority, QueueType
from morag_queue.errors import SourceError, UsageError
from morag_queue.operations.submit_rows import Row, RowFailure, row_of

from .context import CliContext

SHOWN_FAILURES = 20


def _priorities() -> list[str]:
    return [one.name for one in QueuePriority]


Sources = Annotated[list[str] | None, typer.Argument(metavar="PATH|URL…", show_default=False)]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Take the files in directories.")]
Type = Annotated[
    ContentType | None, typer.Option("--type", case_sensitive=False, help="What it is, if you know better.")
]
Priority = Annotated[
    str | None,
    typer.Option("--priority", metavar="P", autocompletion=_priorities, help=f"One of {', '.join(_priorities())}."),
]
Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="K=V", help="For the task; V is JSON, else text. Repeatable.")
]
Queue = Annotated[
    QueueType | None, typer.Option("--queue", case_sensitive=False, help="The queue, if not by the rules.")
]
Worker = Annotated[str | None, typer.Option("--worker", metavar="W", help="Pin it to this worker's lane.")]
Force = Annotated[bool, typer.Option("--force", help="Pin to a worker that cannot take it now, too.")]


def said(**flags: Any) -> dict[str, Any]:
    """The fields of a row that the flags give; those that were not given are left out. Raises UsageError."""
    fields = {name: value for name, value in flags.items() if value not in (None, [])}
    if "priority" in fields:
        try:
            fields["priority"] = parse_priority(fields["priority"])
        except ValueError as error:
            raise UsageError(f"--priority: {error}") from None
    if "options" in fields:
        fields["options"] = dict(map(_option, fields["options"]))
    return fields


def rows(sources: Iterable[str], recursive: bool, fields: dict[str, Any]) -> Iterator[tuple[int, Row | RowFailure]]:
    """One row a source; a directory becomes the files in it. Raises UsageError for what the flags say."""
    from morag_queue.probe import expand

    row_of("-", fields)
    for source in expand(sources, recursive):
        if isinstance(source, SourceError):
            yield 0, RowFailure.of(0, source.source, source)
        elif not source:
            yield 0, RowFailure.of(0, source, SourceError("an empty source: give a path or a URL"))
        elif _is_utf_8(source):
            yield 0, row_of(source, fields)
        else:
            error = SourceError(f"{source}: its name is no UTF-8, and a message has to be: rename it", source=source)
            yield 0, RowFailure.of(0, source, error)


def _is_utf_8(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def tell_failures(ctx: CliContext, failed: list[RowFailure]) -> None:
    """What was not done, on stderr; a long list is cut, for --json has it whole."""
    for one in failed[:SHOWN_FAILURES]:
        place = f"line {one.line}: " if one.line else ""
        ctx.warn(f"failed: {place}{one.error}")
    if len(failed) > SHOWN_FAILURES:
        ctx.warn(f"… and {len(failed) - SHOWN_FAILURES} more; --json lists them all")


def failures(failed: list[RowFailure]) -> list[dict[str, Any]]:
    """As the contract has them in JSON."""
    return [{"line": one.line, "source": one.source, "error": one.error} for one in failed]


def _option(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"--option {text!r}: write it like --option diarization=true")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
