"""A command in a terminal of its own (a pty): what it draws, what is typed, and what it leaves behind."""

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
    """`size` is columns and rows."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], size: tuple[int, int] = (80, 24)) -> None:
        self.drawn = ""
        self._ended: int | None = None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                _resize(0, size)
                # COLUMNS and LINES, which pytest-xdist sets, would override the size of the terminal.
                inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
                os.execve(argv[0], [*argv], {**inherited, **env, "TERM": "xterm-256color"})
            finally:
                os._exit(127)
        self.mode = termios.tcgetattr(self._fd)

    def until(self, text: str) -> str:
        """Until it has drawn that text since the last call; gives all that it drew until then."""
        end = monotonic() + SECONDS
        while text not in self.drawn:
            if monotonic() > end or not self._read(0.2):
                raise AssertionError(f"never drew {text!r}; it drew {self.drawn[-4000:]!r}")
        drawn, self.drawn = self.drawn, ""
        return drawn

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        _resize(self._fd, (columns, rows))

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit status, once it has ended; what it drew last is in `drawn`."""
        until(lambda: not self._read(0.05) or self._has_ended(), SECONDS, "it goes on")
        until(self._has_ended, SECONDS, "it goes on")
        while self._read(0.0):
            pass
        assert self._ended is not None
        return self._ended

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal's mode is what it was before the command."""
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
        """False at the end of all output, and where none came in that time and it has ended."""
        ready, _, _ = select.select([self._fd], (), (), seconds)
        if not ready:
            return not self._has_ended()
        try:
            data = os.read(self._fd, 65_536)
        except OSError:  # Linux's way to say that nobody has the other side open
            return False
        self.drawn += data.decode(errors="replace")
        return bool(data)


def _resize(fd: int, size: tuple[int, int]) -> None:
    columns, rows = size
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
