"""A terminal read key by key, and given back as it was, whatever ends the program."""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self, TextIO

if sys.platform != "win32":
    import termios
    import tty

_NAMES = {
    "\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x1b": "escape",
    "\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home",
}  # fmt: skip


def keys(text: str) -> Iterator[str]:
    """The keys that were typed: characters, and names for what a terminal sends as a sequence."""
    while text:
        if text[0] == "\x1b" and len(text) > 1 and text[1] in "[O":
            end = next((n for n, sign in enumerate(text[2:], 3) if sign.isalpha() or sign == "~"), len(text))
            sequence, text = text[:end], text[end:]
            if sequence in _NAMES:
                yield _NAMES[sequence]
        else:
            yield _NAMES.get(text[0], text[0])
            text = text[1:]


class Keyboard:
    """Keys and signals as they come. Without a terminal as `stdin` there are no keys, and everything else is the same.

    `wait` returns early for a key, a change of the window's size, Ctrl-Z, or a call of `wake` by another thread.
    SIGTERM ends the program by SystemExit, so that what was set is unset.
    """

    def __init__(self, stdin: TextIO | None) -> None:
        self._fd = None if stdin is None else _descriptor(stdin)
        self._reader, self._writer = os.pipe()
        self._before: dict[int, Any] = {}
        self._mode: Any = None
        self._wakeup_before: int | None = None
        self._stopped = self._closed = False

    def __enter__(self) -> Self:
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        with suppress(ValueError):  # no signals outside of the main thread
            self._handle(signal.SIGTERM, _end)
            self._handle(signal.SIGWINCH, lambda *_: self.wake())
            self._handle(signal.SIGTSTP, self._on_stop)
            # A handler runs between two steps of Python: a signal just before `select` begins would go unseen.
            self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._wakeup_before is not None:
            signal.set_wakeup_fd(self._wakeup_before)
        self._closed = True
        os.close(self._reader)
        os.close(self._writer)

    def wake(self) -> None:
        """Makes `wait` return. Safe in a signal handler and in other threads."""
        if not self._closed:
            with suppress(BlockingIOError):
                os.write(self._writer, b"!")

    def wait(self, seconds: float) -> list[str]:
        """The keys typed in that time, none when it has passed or something else happened."""
        watched = [self._reader] if self._fd is None else [self._reader, self._fd]
        ready, _, _ = select.select(watched, (), (), max(seconds, 0.0))
        if self._reader in ready:
            with suppress(BlockingIOError):
                os.read(self._reader, 4096)
        if self._fd is None or self._fd not in ready:
            return []
        typed = os.read(self._fd, 1024)
        if not typed:
            self._fd = None  # the terminal is gone
        return list(keys(typed.decode(errors="ignore")))

    @property
    def wants_stop(self) -> bool:
        """Ctrl-Z was typed: `stop` when the screen is given back."""
        return self._stopped

    def stop(self) -> None:
        """Stops the process as Ctrl-Z does, and goes on here when it is continued."""
        self._stopped = False
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._on_stop)
        self._take()

    def _on_stop(self, _: int, __: FrameType | None) -> None:
        self._stopped = True
        self.wake()

    def _handle(self, number: signal.Signals, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._before[number] = signal.signal(number, handler)

    def _take(self) -> None:
        if self._fd is not None:
            self._mode = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)

    def _give_back(self) -> None:
        if self._fd is not None and self._mode is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._mode)
            self._mode = None


def _descriptor(stdin: TextIO) -> int | None:
    """Of a terminal whose keys are ours to read: a job in the background has none."""
    if not stdin.isatty():
        return None
    try:
        number = stdin.fileno()
        return number if os.tcgetpgrp(number) == os.getpgrp() else None
    except OSError:
        return None


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
