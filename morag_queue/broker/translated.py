"""Raise errors of clients as ours, without importing redis-py unless there is one."""

from collections.abc import Iterator
from contextlib import contextmanager

from morag_queue.errors import LeaseLost, MoragQueueError


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise redis-py's errors as ours; the message never contains a password."""
    try:
        yield
    except MoragQueueError:
        raise
    except Exception as error:
        from .connection import translation

        ours = translation(error, url)
        if ours is None:
            raise
        raise ours from error


@contextmanager
def fenced() -> Iterator[None]:
    """Raise LeaseLost if the server refuses a term because the lease has passed to another leader."""
    try:
        yield
    except Exception as error:
        if not is_stale(error):
            raise
        raise LeaseLost from error


def is_stale(error: Exception) -> bool:
    """Whether a script refused the term; in a pipeline, redis-py puts the command before the server's message."""
    return "STALE term" in str(error)
