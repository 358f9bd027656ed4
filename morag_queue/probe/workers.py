"""Probe many sources in helper processes.

Measured on two cores with 10,000 files, 40 % of them audio and video: one process 18 s, two threads 16 s (MediaInfo
holds the GIL most of the time, the other parsers always), two processes 10 s. A process also isolates the caller from a
parser that crashes. The helpers are plain subprocesses instead of a multiprocessing pool: the caller's main module is
not imported again in each of them, needs no `__main__` guard, and may use threads.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Self, TypeVar

from morag_queue.core.model import ContentType, Facts
from morag_queue.errors import SourceError

from . import content
from .names import type_by_name
from .source import probe

T = TypeVar("T")

Result = Facts | SourceError
Request = list[tuple[str | SourceError, ContentType | None]]

FILE_SECONDS = 8
"""Time limit of one file, after which its helper is killed."""

_INLINE = 64  # a helper takes 0.2 s to start, the time of about 64 media files
_CHUNK = 32
_HELPERS_MAX = 8
_AHEAD = 8 * _CHUNK  # sources per helper: the work of a helper while the caller queues a batch
_EXIT_SECONDS = 2
_PACKAGE_PARENT = str(Path(__file__).parents[2])  # lets a helper import this package even if it is not installed


def probe_many(
    sources: Iterable[str | SourceError], *, declared: ContentType | None = None, workers: int | None = None
) -> Iterator[Result]:
    """Yield the facts of each source, in order; `sources` is read lazily, some hundred ahead.

    A source that cannot be submitted yields a SourceError in its place, and a SourceError among the sources (see
    `expand`) passes through. A file whose parser crashes or hangs yields Facts with that problem. `workers` is the
    number of processes (default: one per core, at most 8; 1: only this process).
    """
    with Prober(workers) as prober:
        for probing in prober.ahead(prober.start(source, declared) for source in sources):
            yield probing.result()


class Probing:
    """A source whose probe was started, or waits for more of its kind. A result is read once and kept."""

    __slots__ = ("_prober", "answer", "declared", "helper", "source")

    def __init__(self, prober: "Prober", source: str | SourceError, declared: ContentType | None) -> None:
        self._prober, self.source, self.declared = prober, source, declared
        self.helper: _Helper | None = None
        self.answer: Result | None = None

    def result(self) -> Result:
        """Wait for the facts, or the error of a source that cannot be submitted."""
        if self.answer is None:
            self._prober.finish(self)
        assert self.answer is not None
        return self.answer


class Prober:
    """Probes up to 64 sources in this process, and more in helper processes, which end with the context.

    The helpers probe while the caller does other work between `start` and `result`. Ask for the results in the order of
    the starts.
    """

    def __init__(self, workers: int | None = None) -> None:
        """`workers`: see `probe_many`."""
        self._size = workers or min(_cores(), _HELPERS_MAX)
        self._helpers: list[_Helper] = []
        self._unsent: deque[Probing] = deque()
        self._chunks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for helper in self._helpers:
            helper.kill()

    def start(self, source: str | SourceError, declared: ContentType | None = None) -> Probing:
        probing = Probing(self, source, declared)
        self._unsent.append(probing)
        if self._size > 1 and len(self._unsent) >= (_CHUNK if self._helpers else _INLINE + 1):
            self._send()
        return probing

    def ahead(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, but read some hundred ahead: the probes that were started for these run meanwhile."""
        waiting: deque[T] = deque()
        for item in items:
            waiting.append(item)
            if len(waiting) > self._size * _AHEAD:
                yield waiting.popleft()
        yield from waiting

    def finish(self, probing: Probing) -> None:
        """Set the answer of a probe that was started here."""
        if probing.helper is None and self._helpers:
            self._send()
        if probing.helper is None:
            self._unsent.remove(probing)
            probing.answer = _probe_one(probing.source, probing.declared)
        else:
            probing.helper.answer(probing)

    def _send(self) -> None:
        """Give chunks to the helpers in turn."""
        while self._unsent:
            chunk = [self._unsent.popleft() for _ in range(min(_CHUNK, len(self._unsent)))]
            if len(self._helpers) < self._size:
                self._helpers.append(_Helper())
            self._helpers[self._chunks % self._size].add(chunk)
            self._chunks += 1


def _probe_one(source: str | SourceError, declared: ContentType | None) -> Result:
    """Call `probe`, but return its error."""
    if isinstance(source, SourceError):
        return source
    try:
        return probe(source, declared=declared)
    except SourceError as error:
        error.source = source
        return error


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


class _Helper:
    """The parent's end of a helper process, which runs `main`. It answers in order. One that dies is replaced."""

    def __init__(self) -> None:
        self._sent: deque[Probing] = deque()
        self._process = _start()

    def add(self, chunk: Sequence[Probing]) -> None:
        for probing in chunk:
            probing.helper = self
        self._sent.extend(chunk)
        self._request(chunk)

    def answer(self, probing: Probing) -> None:
        """Read answers up to that of `probing`. Only the file that the helper was reading when it died has no facts."""
        while probing.answer is None:
            current = self._sent[0]
            try:
                current.answer = self.receive()
            except (EOFError, pickle.UnpicklingError):
                current.answer = _parser_died(current.source, current.declared, self._exit_code())
                self._process = _start()
                self._request(list(self._sent)[1:])
            self._sent.popleft()

    def receive(self) -> Result:
        assert self._process.stdout is not None
        result: Result = pickle.load(self._process.stdout)
        return result

    def kill(self) -> None:
        self._process.kill()
        self._exit_code()

    def _request(self, chunk: Sequence[Probing]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: `answer` finds out
            pickle.dump([(probing.source, probing.declared) for probing in chunk], self._process.stdin)
            self._process.stdin.flush()

    def _exit_code(self) -> int:
        """Close the pipes, wait until the helper exits, kill it after 2 s; return its exit code."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        # -P: do not import a module of the current directory instead of a library.
        [sys.executable, "-P", "-c", "from morag_queue.probe.workers import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (_PACKAGE_PARENT, os.environ.get("PYTHONPATH"))))},
        start_new_session=True,  # keep Ctrl-C away from the helper; it exits when its stdin closes
    )


def _parser_died(source: str | SourceError, declared: ContentType | None, code: int) -> Facts:
    """Return the facts of the file that a helper was reading when a signal killed it.

    Raises RuntimeError if no signal killed it: that is a defect of this module, not of the file.
    """
    if isinstance(source, SourceError) or code >= 0:
        raise RuntimeError(f"a probe helper exited unexpectedly (exit code {code}); its messages are above")
    failure = f"ran for more than {FILE_SECONDS} s" if code == -signal.SIGALRM else f"crashed (signal {-code})"
    return Facts(
        source=source,
        declared_type=declared or type_by_name(source),
        problems=(f"its content was not read, because the parser {failure}",),
    )


def main() -> None:
    """Run the helper process: answer requests until stdin closes."""
    content.is_helper = True
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keep what a library prints out of the pickled results
    with contextlib.suppress(BrokenPipeError):  # the parent has exited
        _serve(_requests(os.fdopen(os.dup(0), "rb")), output)


def _requests(pipe: IO[bytes]) -> Iterator[Request]:
    """Yield requests. A thread reads them at once, so that the parent never waits to write while we wait to answer."""
    from queue import SimpleQueue
    from threading import Thread

    requests: SimpleQueue[Request | None] = SimpleQueue()

    def read() -> None:
        with contextlib.suppress(EOFError):
            while True:
                requests.put(pickle.load(pipe))
        requests.put(None)

    Thread(target=read, name="requests", daemon=True).start()
    while (request := requests.get()) is not None:
        yield request


def _serve(requests: Iterable[Request], output: IO[bytes]) -> None:
    for request in requests:
        for source, declared in request:
            signal.alarm(FILE_SECONDS)  # without a handler it kills the process, even inside a native library
            result = _probe_one(source, declared)
            signal.alarm(0)
            pickle.dump(result, output)
            output.flush()
