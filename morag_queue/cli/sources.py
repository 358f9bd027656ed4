"""Arguments and options of `submit` and `classify`, and the rows built from them."""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from morag_queue.core.levels import parse_priority
from morag_queue.core.model import ContentType, QueueType
from morag_queue.errors import SourceError, UsageError
from morag_queue.operations.submit_rows import Row, RowFailure, row_of

from .context import CliContext
from .parameters import priority_option

_SHOWN_FAILURES = 20

Sources = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH|URL…", show_default=False, help="Files, URLs, or directories with --recursive."),
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Include the files in directories.")]
Type = Annotated[
    ContentType | None, typer.Option("--type", case_sensitive=False, help="Content type; default: detect it.")
]
Priority = Annotated[str | None, priority_option("Priority; default: derive it from the source")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="K=V", help="Task option; V is JSON or plain text. Repeatable."),
]
Queue = Annotated[
    QueueType | None, typer.Option("--queue", case_sensitive=False, help="Target queue; default: route the task.")
]
Worker = Annotated[str | None, typer.Option("--worker", metavar="W", help="Pin to this worker.")]
AllowCpu = Annotated[
    bool,
    typer.Option("--allow-cpu", help="Allow a named worker or queue without the GPU that a task requires."),
]


def row_fields(**flags: Any) -> dict[str, Any]:
    """Return the fields of a row from the flags that were given. Raises UsageError."""
    fields = {name: value for name, value in flags.items() if value not in (None, [])}
    if "priority" in fields:
        try:
            fields["priority"] = parse_priority(fields["priority"])
        except ValueError as error:
            raise UsageError(f"--priority: {error}") from None
    if "options" in fields:
        fields["options"] = dict(map(_parse_option, fields["options"]))
    return fields


def source_rows(
    sources: Iterable[str], recursive: bool, fields: dict[str, Any]
) -> Iterator[tuple[int, Row | RowFailure]]:
    """Yield (0, row) for each source and for each file of a directory. Raises UsageError for invalid `fields`."""
    from morag_queue.probe import expand

    row_of("-", fields)
    for source in expand(sources, recursive):
        if isinstance(source, SourceError):
            yield 0, RowFailure.of(0, source.source, source)
        elif not source:
            yield 0, RowFailure.of(0, source, SourceError("empty source: pass a path or a URL"))
        elif _is_utf8(source):
            yield 0, row_of(source, fields)
        else:
            error = SourceError(f"{source}: the name is not valid UTF-8; rename the file", source=source)
            yield 0, RowFailure.of(0, source, error)


def warn_failures(ctx: CliContext, failures: list[RowFailure]) -> None:
    """List the first failures on stderr; --json has all of them."""
    for failure in failures[:_SHOWN_FAILURES]:
        place = f"line {failure.line}: " if failure.line else ""
        ctx.warn(f"failed: {place}{failure.error}")
    if len(failures) > _SHOWN_FAILURES:
        ctx.warn(f"… and {len(failures) - _SHOWN_FAILURES} more; --json lists them all")


def failures_as_json(failures: list[RowFailure]) -> list[dict[str, Any]]:
    return [{"line": failure.line, "source": failure.source, "error": failure.error} for failure in failures]


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse_option(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"--option {text!r}: use the form NAME=VALUE, for example --option diarization=true")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
