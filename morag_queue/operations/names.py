"""Resolve names of workers, queues and lanes by an unambiguous prefix."""

from collections.abc import Iterable

from morag_queue.core.model import QueueType
from morag_queue.core.words import some
from morag_queue.errors import NotFound, UsageError

NAMES_LISTED = 10
"""Names that an error lists."""


def resolve(kind: str, given: str, known: Iterable[str]) -> str:
    """Return the name that equals `given`, or the only one with that prefix.

    Raises NotFound, or UsageError that lists the candidates.
    """
    names = set(known)
    if given in names:
        return given
    found = [name for name in names if given and name.startswith(given)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{kind} {given!r} is ambiguous: {some(found, NAMES_LISTED)}")
    raise NotFound(f"no {kind} {given!r}; there {'are ' + some(names, NAMES_LISTED) if names else 'is none'}")


def resolve_queue(given: str) -> QueueType:
    """Return the queue with this name or unique prefix. Raises NotFound, UsageError."""
    return QueueType(resolve("queue", given, QueueType))
