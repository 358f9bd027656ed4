"""A child process that probes: it may crash or hang in a parser without harm to anybody but itself."""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from morag_queue.core.model import ContentType, Facts
from morag_queue.errors import SourceError

from .suffixes import type_by_name

SECONDS = 8  # before `timed` gives up, which would leave a thread that computes on and on in a helper
_GRACE_SECONDS = 2
_HOME = str(Path(__file__).parents[2])  # where this package is found, installed or not


class Helpers:
    """The helpers of one run, started when a thread needs one and none is idle; a context, after which none is left."""

    def __init__(self, declared: ContentType | None) -> None:
        self._declared = declared
        self._all: list[_Helper] = []
        self._idle: queue.SimpleQueue[_Helper] = queue.SimpleQueue()
        self._stopping = False

    def __enter__(self) -> "Helpers":
        return self

    def __exit__(self, *_: object) -> None:
        for helper in self._all:
            helper.end()

    def stop(self) -> None:
        """Ends what is under way; its results are incomplete."""
        self._stopping = True
        for helper in list(self._all):
            helper.kill()

    def probe(self, sources: list[str | SourceError]) -> list[Facts | SourceError]:
        """The results of the sources. A helper that dies takes its present file with it and is replaced."""
        results: list[Facts | SourceError] = []
        while len(results) < len(sources) and not self._stopping:
            helper = self._helper()
            try:
                helper.ask(sources[len(results) :], self._declared)
                while len(results) < len(sources) and not self._stopping:
                    results.append(helper.answer())
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                if not self._stopping:
                    results.append(_died(sources[len(results)], self._declared, helper.end()))
            else:
                self._idle.put(helper)
        return results

    def _helper(self) -> "_Helper":
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            helper = _Helper()
            self._all.append(helper)
            return helper


class _Helper:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            # -P: a file of the current directory that is called like a module is not one.
            [sys.executable, "-P", "-c", "from morag_queue.probe.helper import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (_HOME, os.environ.get("PYTHONPATH"))))},
            start_new_session=True,  # Ctrl-C is for whoever started us; the end of its input ends the helper
        )

    def ask(self, sources: list[str | SourceError], declared: ContentType | None) -> None:
        assert self._process.stdin is not None
        pickle.dump((sources, declared), self._process.stdin)
        self._process.stdin.flush()

    def answer(self) -> Facts | SourceError:
        assert self._process.stdout is not None
        result: Facts | SourceError = pickle.load(self._process.stdout)
        return result

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> int:
        """Waits until it has ended, as it does with its input, and gives its exit code."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            code = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code


def _died(source: str | SourceError, declared: ContentType | None, code: int) -> Facts | SourceError:
    """The result of the source that a helper died of. Raises RuntimeError where no signal ended it: our fault."""
    if isinstance(source, SourceError) or code >= 0:
        raise RuntimeError(f"the helper process that reads files ended by itself (exit {code}); see its messages above")
    what = f"ran for more than {SECONDS} s" if code == -signal.SIGALRM else f"crashed (signal {-code})"
    return Facts(
        source=source,
        declared_type=declared or type_by_name(source),
        problems=(f"reading it was given up: its parser {what}",),
    )


def main() -> None:
    """The helper's side: answers until its input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        _serve(sys.stdin.buffer, answers)


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    from .many import probe_one

    while True:
        try:
            sources, declared = pickle.load(requests)
        except EOFError:
            return
        for source in sources:
            signal.alarm(SECONDS)  # no handler: it ends the process, even inside a native library
            result = probe_one(source, declared)
            signal.alarm(0)
            pickle.dump(result, answers)
            answers.flush()
