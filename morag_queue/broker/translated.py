"""Raise errors of clients as ours, without importing redis-py unless there is one."""

from collections.abc import Iterator
from contextlib import contextmanager

from morag_queue.errors import MoragQueueError


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
