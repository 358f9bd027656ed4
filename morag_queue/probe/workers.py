"""Probe many sources in worker processes.

Measured on two cores with 10,000 files, 40 % of them audio and video: one process 18 s, two threads 16 s (MediaInfo
holds the GIL most of the time, the other parsers always), two processes 10 s. A process also isolates the caller from a
parser that crashes. The workers are plain subprocesses instead of a multiprocessing pool: the caller's main module is
not imported again in each of them, needs no `__main__` guard, and may use threads.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from morag_queue.core.model import ContentType, Facts
from morag_queue.errors import SourceError

from .names import type_by_name
from .source import probe

if TYPE_CHECKING:
    from concurrent.futures import Future

Result = Facts | SourceError

FILE_SECONDS = 8
"""Time limit of one file; shorter than `content.PARSER_SECONDS`, after which a busy thread would stay in the worker."""

_INLINE = 64  # a worker takes 0.2 s to start, the time of about 64 media files
_CHUNK = 32
_WORKERS_MAX = 8
_EXIT_SECONDS = 2
_PACKAGE_PARENT = str(Path(__file__).parents[2])  # lets a worker import this package even if it is not installed


def probe_many(
    sources: Iterable[str | SourceError],
    *,
    declared: ContentType | None = None,
    workers: int | None = None,
    on_done: Callable[[Result], None] | None = None,
) -> Iterator[Result]:
    """Yield the facts of each source, in order; `sources` is read lazily.

    A source that cannot be submitted yields a SourceError in its place, and a SourceError among the sources (see
    `expand`) passes through. A file whose parser crashes or hangs yields Facts with that problem. `workers` is the
    number of processes (default: one per core, at most 8; 1: only this process). `on_done` is called with each result
    in this thread, just before it is yielded.
    """
    remaining = iter(sources)
    workers = workers or min(_cores(), _WORKERS_MAX)
    inline = remaining if workers == 1 else islice(remaining, _INLINE)
    yield from _notify((_probe_one(source, declared) for source in inline), on_done)
    yield from _notify(_probe_in_workers(remaining, declared, workers), on_done)


def _probe_one(source: str | SourceError, declared: ContentType | None) -> Result:
    """Call `probe`, but return its error."""
    if isinstance(source, SourceError):
        return source
    try:
        return probe(source, declared=declared)
    except SourceError as error:
        error.source = source
        return error


def _notify(results: Iterator[Result], on_done: Callable[[Result], None] | None) -> Iterator[Result]:
    for result in results:
        if on_done is not None:
            on_done(result)
        yield result


def _probe_in_workers(
    remaining: Iterator[str | SourceError], declared: ContentType | None, workers: int
) -> Iterator[Result]:
    first = list(islice(remaining, _CHUNK))
    if not first:
        return
    from concurrent.futures import ThreadPoolExecutor

    with _WorkerPool(declared) as pool, ThreadPoolExecutor(workers) as threads:
        pending: deque[Future[list[Result]]] = deque([threads.submit(pool.probe, first)])
        try:
            while pending:
                while len(pending) < 4 * workers and (chunk := list(islice(remaining, _CHUNK))):
                    pending.append(threads.submit(pool.probe, chunk))
                yield from pending.popleft().result()
        finally:
            pool.stop()
            threads.shutdown(cancel_futures=True)


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


class _WorkerPool:
    """The worker processes of one run: started on demand when none is idle, all stopped with the context."""

    def __init__(self, declared: ContentType | None) -> None:
        self._declared = declared
        self._all: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._stopping = False

    def __enter__(self) -> "_WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            worker.close()

    def stop(self) -> None:
        """Kill the workers; results of calls in progress are incomplete."""
        self._stopping = True
        for worker in list(self._all):
            worker.kill()

    def probe(self, sources: list[str | SourceError]) -> list[Result]:
        """Return the results in order. A worker that dies is replaced; only its current file has no facts."""
        results: list[Result] = []
        while len(results) < len(sources) and not self._stopping:
            worker = self._worker()
            try:
                worker.send(sources[len(results) :], self._declared)
                while len(results) < len(sources) and not self._stopping:
                    results.append(worker.receive())
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                if not self._stopping:
                    results.append(_parser_died(sources[len(results)], self._declared, worker.close()))
            else:
                self._idle.put(worker)
        return results

    def _worker(self) -> "_Worker":
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            worker = _Worker()
            self._all.append(worker)
            return worker


class _Worker:
    """The parent's end of one worker process, which runs `main`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            # -P: do not import a module of the current directory instead of a library.
            [sys.executable, "-P", "-c", "from morag_queue.probe.workers import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(filter(None, (_PACKAGE_PARENT, os.environ.get("PYTHONPATH"))))},
            start_new_session=True,  # keep Ctrl-C away from the worker; it exits when its stdin closes
        )

    def send(self, sources: list[str | SourceError], declared: ContentType | None) -> None:
        assert self._process.stdin is not None
        pickle.dump((sources, declared), self._process.stdin)
        self._process.stdin.flush()

    def receive(self) -> Result:
        assert self._process.stdout is not None
        result: Result = pickle.load(self._process.stdout)
        return result

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> int:
        """Close the worker's stdin, wait until it exits, kill it after 2 s; return its exit code."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code


def _parser_died(source: str | SourceError, declared: ContentType | None, code: int) -> Facts:
    """Return the facts of the file that a worker was reading when a signal killed it.

    Raises RuntimeError if no signal killed it: that is a defect of this module, not of the file.
    """
    if isinstance(source, SourceError) or code >= 0:
        raise RuntimeError(f"a probe worker exited unexpectedly (exit code {code}); its messages are above")
    failure = f"ran for more than {FILE_SECONDS} s" if code == -signal.SIGALRM else f"crashed (signal {-code})"
    return Facts(
        source=source,
        declared_type=declared or type_by_name(source),
        problems=(f"its content was not read, because the parser {failure}",),
    )


def main() -> None:
    """Run the worker process: answer requests until stdin closes."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keep what a library prints out of the pickled results
    with contextlib.suppress(BrokenPipeError):  # the parent has exited
        _serve(sys.stdin.buffer, output)


def _serve(requests: IO[bytes], output: IO[bytes]) -> None:
    while True:
        try:
            sources, declared = pickle.load(requests)
        except EOFError:
            return
        for source in sources:
            signal.alarm(FILE_SECONDS)  # without a handler it kills the process, even inside a native library
            result = _probe_one(source, declared)
            signal.alarm(0)
            pickle.dump(result, output)
            output.flush()
