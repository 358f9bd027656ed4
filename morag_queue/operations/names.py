"""Resolve names of workers, queues and lanes by an unambiguous prefix."""

from collections.abc import Iterable

from morag_queue.core.model import QueueType
from morag_queue.errors import NotFound, UsageError

_SHOWN = 10


def resolve(kind: str, given: str, known: Iterable[str]) -> str:
    """Return the name that equals `given`, or the only one with that prefix.

    Raises NotFound, or UsageError that lists the candidates.
    """
    names = sorted(set(known))
    if given in names:
        return given
    found = [name for name in names if given and name.startswith(given)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{kind} {given!r} is ambiguous: {_listed(found)}")
    raise NotFound(f"no {kind} {given!r}; there {'are ' + _listed(names) if names else 'is none'}")


def resolve_queue(given: str) -> QueueType:
    return QueueType(resolve("queue", given, QueueType))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
