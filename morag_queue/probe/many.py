"""Many sources at once, in helper processes.

Measured on two cores with 10,000 files, four in ten of them audio and video: one process 18 s, two threads 16 s (most
of MediaInfo and all of the rest hold a lock), two processes 10 s. Processes also survive what a parser does to them.
They are plain children rather than a multiprocessing pool, so that a program that calls this is not imported again in
each of them, needs no guard in its main module, and may have threads.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from morag_queue.core.model import ContentType, Facts
from morag_queue.errors import SourceError

from .one import probe

if TYPE_CHECKING:
    from concurrent.futures import Future

Result = Facts | SourceError

_INLINE = 64  # a helper takes 0.2 s to start: so long takes this many media files
_CHUNK = 32
_WORKERS_MAX = 8


def probe_many(
    sources: Iterable[str | SourceError],
    *,
    declared: ContentType | None = None,
    workers: int | None = None,
    on_done: Callable[[Result], None] | None = None,
) -> Iterator[Result]:
    """The facts of each source, in the order of `sources`, which is read little by little.

    A source that cannot be submitted comes as a SourceError in its place, and a SourceError among the sources (as
    `expand` gives them) passes through. A file whose parser crashes or hangs comes as Facts with that problem.
    `workers` is the number of processes (default: one a core, 8 at most; 1: none but this one). `on_done` is called
    with each result, in this thread, just before it is handed out.
    """
    waiting = iter(sources)
    workers = workers or min(_cores(), _WORKERS_MAX)
    inline = waiting if workers == 1 else islice(waiting, _INLINE)
    yield from _told((probe_one(source, declared) for source in inline), on_done)
    yield from _told(_in_helpers(waiting, declared, workers), on_done)


def probe_one(source: str | SourceError, declared: ContentType | None) -> Result:
    """`probe`, with the error as data."""
    if isinstance(source, SourceError):
        return source
    try:
        return probe(source, declared=declared)
    except SourceError as error:
        error.source = source
        return error


def _told(results: Iterator[Result], on_done: Callable[[Result], None] | None) -> Iterator[Result]:
    for result in results:
        if on_done is not None:
            on_done(result)
        yield result


def _in_helpers(waiting: Iterator[str | SourceError], declared: ContentType | None, workers: int) -> Iterator[Result]:
    first = list(islice(waiting, _CHUNK))
    if not first:
        return
    from concurrent.futures import ThreadPoolExecutor

    from .helper import Helpers

    with Helpers(declared) as helpers, ThreadPoolExecutor(workers) as threads:
        under_way: deque[Future[list[Result]]] = deque([threads.submit(helpers.probe, first)])
        try:
            while under_way:
                while len(under_way) < 4 * workers and (chunk := list(islice(waiting, _CHUNK))):
                    under_way.append(threads.submit(helpers.probe, chunk))
                yield from under_way.popleft().result()
        finally:
            helpers.stop()
            threads.shutdown(cancel_futures=True)


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
