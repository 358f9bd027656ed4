"""Start Python programs as forks of a process that has imported Celery already: a worker takes 0.2 s instead of 2."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from morag_queue.errors import MoragQueueError

from . import guard
from .waiting import LOOK_SECONDS


class Process(Protocol):
    """What `subprocess.Popen` and `Forked` have in common."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> Any: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Prefork:
    """A process that forks others. They are no children of ours: it keeps their exit statuses for us.

    It ends with `close` or with this process, whatever ends that.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        env = {name: value for name, value in os.environ.items() if not name.startswith("MORAG_")}
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "morag_queue.local.prefork_server", str(theirs.fileno())],
                # A place for the token of a nest in what others see of the environment of the children.
                env={**env, guard.TOKEN: "-" * guard.TOKEN_LENGTH},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._connection, self._lines = ours, ours.makefile("rb")
        self._lock = Lock()  # one request at a time

    def start(
        self, module: str, args: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdout: Path, stderr: Path
    ) -> "Forked":
        """`python -m module *args` in a session of its own, without stdin; what it prints is added to the files.

        Raises MoragQueueError where that cannot be done.
        """
        job = {"module": module, "args": [*args], "env": {**env}}
        answer = self._ask({**job, "cwd": str(cwd), "stdout": str(stdout), "stderr": str(stderr)})
        if "error" in answer:
            raise MoragQueueError(f"cannot start {module}: {answer['error']}")
        return Forked(self, answer["pid"])

    def returncode(self, pid: int) -> int | None:
        """None while it runs."""
        code: int | None = self._ask({"status": pid})["returncode"]
        return code

    def close(self) -> None:
        """Ends it; what it forked goes on. Safe to call twice."""
        self._lines.close()
        self._connection.close()
        self._server.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            try:
                self._connection.sendall(json.dumps(request).encode() + b"\n")
                line = self._lines.readline()
            except (OSError, ValueError):  # ValueError: closed
                line = b""
        if not line:
            raise MoragQueueError("the process that starts workers has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Forked:
    """A program that `Prefork` started, with the methods of `subprocess.Popen`."""

    def __init__(self, prefork: Prefork, pid: int) -> None:
        self._prefork, self.pid = prefork, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._prefork.returncode(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(LOOK_SECONDS / 2)
        return code

    def send_signal(self, sig: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            try:
                os.kill(self.pid, sig)
            except ProcessLookupError:
                return

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def shared() -> Prefork:
    """The one of this process, started at the first call."""
    one = Prefork()
    atexit.register(one.close)
    return one
