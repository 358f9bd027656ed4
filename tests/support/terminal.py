"""Run a command in its own terminal (a pty): read its output, type keys, and check the terminal afterwards."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
from collections.abc import Mapping, Sequence
from time import monotonic

from morag_queue.local.waiting import until

SECONDS = 20.0


class Terminal:
    """`size`: columns and rows; `drawn`: output since the last `until`."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], size: tuple[int, int] = (80, 24)) -> None:
        self.drawn = ""
        self._ended: int | None = None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                _resize(0, size)
                os.execve(argv[0], [*argv], {**_without_size(os.environ), **env, "TERM": "xterm-256color"})
            finally:
                os._exit(127)
        self.mode = termios.tcgetattr(self._fd)

    def until(self, text: str) -> str:
        """Wait until the text was drawn; return the output since the last call."""
        end = monotonic() + SECONDS
        while text not in self.drawn:
            if monotonic() > end or not self._read(0.2):
                raise AssertionError(f"did not draw {text!r} but {self.drawn[-4000:]!r}")
        drawn, self.drawn = self.drawn, ""
        return drawn

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        _resize(self._fd, (columns, rows))

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the end and return the exit status; the last output is in `drawn`."""
        until(lambda: not self._read(0.05) or self._has_ended(), SECONDS, "the command did not end")
        until(self._has_ended, SECONDS, "the command did not end")
        while self._read(0.0):
            pass
        assert self._ended is not None
        return self._ended

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal's mode is the same as before the command."""
        return termios.tcgetattr(self._fd)[:4] == self.mode[:4]

    def close(self) -> None:
        if not self._has_ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    def _has_ended(self) -> bool:
        if self._ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended = os.waitstatus_to_exitcode(status)
        return self._ended is not None

    def _read(self, seconds: float) -> bool:
        """Read for at most `seconds`. Return False when the command has ended and all its output was read."""
        ready, _, _ = select.select([self._fd], (), (), seconds)
        if not ready:
            return not self._has_ended()
        try:
            data = os.read(self._fd, 65_536)
        except OSError:  # on Linux: the other side was closed
            return False
        self.drawn += data.decode(errors="replace")
        return bool(data)


def _without_size(env: Mapping[str, str]) -> dict[str, str]:
    """Remove the size that xdist sets for its processes; the terminal has its own."""
    return {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}


def _resize(fd: int, size: tuple[int, int]) -> None:
    columns, rows = size
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
