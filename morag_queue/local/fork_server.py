"""Start Python programs by forking a process that has already imported Celery: a worker takes 0.2 s instead of 2."""

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

from . import reaper
from .waiting import POLL_SECONDS


class Process(Protocol):
    """The common interface of `subprocess.Popen` and `ForkedProcess`."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> Any: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class ForkServer:
    """Client of a process that forks others and keeps their exit statuses.

    The server exits on `close`, or when this process ends for any reason.
    """

    def __init__(self) -> None:
        client, server = socket.socketpair()
        env = {name: value for name, value in os.environ.items() if not name.startswith("MORAG_")}
        with server:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "morag_queue.local.fork_server_main", str(server.fileno())],
                # Reserve space for a sandbox token in the environment block that /proc shows for the children.
                env={**env, reaper.TOKEN: "-" * reaper.TOKEN_LENGTH},
                pass_fds=[server.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._connection, self._lines = client, client.makefile("rb")
        self._lock = Lock()  # one request at a time

    def start(
        self, module: str, args: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdout: Path, stderr: Path
    ) -> "ForkedProcess":
        """Run `python -m module *args` in a new session, without stdin; append its output to the files.

        Raises MoragQueueError if the child cannot be started.
        """
        job = {"module": module, "args": [*args], "env": {**env}}
        answer = self._ask({**job, "cwd": str(cwd), "stdout": str(stdout), "stderr": str(stderr)})
        if "error" in answer:
            raise MoragQueueError(f"cannot start {module}: {answer['error']}")
        return ForkedProcess(self, answer["pid"])

    def returncode(self, pid: int) -> int | None:
        """Exit status of a child; None while it runs."""
        code: int | None = self._ask({"status": pid})["returncode"]
        return code

    def close(self) -> None:
        """Stop the server; its children keep running. Safe to call twice."""
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


class ForkedProcess:
    """A child of `ForkServer`, with the methods of `subprocess.Popen`."""

    def __init__(self, prefork: ForkServer, pid: int) -> None:
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
            time.sleep(POLL_SECONDS / 2)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process has ended."""
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
def shared() -> ForkServer:
    """The fork server of this process, started at the first call."""
    server = ForkServer()
    atexit.register(server.close)
    return server
