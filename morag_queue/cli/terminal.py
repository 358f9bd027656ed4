"""Read single keys from a terminal, and restore its mode however the program ends."""

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

_KEY_NAMES = {
    "\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x1b": "escape",
    "\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home",
}  # fmt: skip


def parse_keys(text: str) -> Iterator[str]:
    """Split terminal input into keys: characters, and names for special keys. Unknown sequences are skipped."""
    while text:
        if text[0] == "\x1b" and len(text) > 1 and text[1] in "[O":
            end = next((n for n, char in enumerate(text[2:], 3) if char.isalpha() or char == "~"), len(text))
            sequence, text = text[:end], text[end:]
            if sequence in _KEY_NAMES:
                yield _KEY_NAMES[sequence]
        else:
            yield _KEY_NAMES.get(text[0], text[0])
            text = text[1:]


class TerminalInput:
    """Waits for keys and signals. If `stdin` is not a terminal, there are no keys.

    `wait` returns early on a key, a resized window, Ctrl-Z, or a call of `wake` from another thread. SIGTERM raises
    SystemExit, so that the terminal is restored. After Ctrl-Z, `suspend_requested` is true: the caller restores the
    screen, then calls `suspend`.
    """

    def __init__(self, stdin: TextIO | None) -> None:
        self._fd = None if stdin is None else _descriptor(stdin)
        self._reader, self._writer = os.pipe()
        self._previous_handlers: dict[int, Any] = {}
        self._previous_wakeup_fd: int | None = None
        self._mode: Any = None
        self._closed = False
        self.suspend_requested = False

    def __enter__(self) -> Self:
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        with suppress(ValueError):  # signal handlers can only be set in the main thread
            self._handle(signal.SIGTERM, _exit)
            self._handle(signal.SIGWINCH, lambda *_: self.wake())
            self._handle(signal.SIGTSTP, self._on_suspend_signal)
            # Python runs handlers between bytecodes: `select` would miss a signal that arrives just before it.
            self._previous_wakeup_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._set_mode()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore_mode()
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        if self._previous_wakeup_fd is not None:
            signal.set_wakeup_fd(self._previous_wakeup_fd)
        self._closed = True
        os.close(self._reader)
        os.close(self._writer)

    def wake(self) -> None:
        """Make `wait` return. Safe in signal handlers and in other threads."""
        if not self._closed:
            with suppress(BlockingIOError):
                os.write(self._writer, b"!")

    def wait(self, seconds: float) -> list[str]:
        """Wait for up to `seconds` and return the keys typed, none on a timeout or another event."""
        descriptors = [self._reader] if self._fd is None else [self._reader, self._fd]
        ready, _, _ = select.select(descriptors, (), (), max(seconds, 0.0))
        if self._reader in ready:
            with suppress(BlockingIOError):
                os.read(self._reader, 4096)
        if self._fd is None or self._fd not in ready:
            return []
        typed = os.read(self._fd, 1024)
        if not typed:
            self._fd = None  # the terminal was closed
        return list(parse_keys(typed.decode(errors="ignore")))

    def suspend(self) -> None:
        """Suspend the process as Ctrl-Z does; returns when it is resumed."""
        self.suspend_requested = False
        self._restore_mode()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._on_suspend_signal)
        self._set_mode()

    def _on_suspend_signal(self, _: int, __: FrameType | None) -> None:
        self.suspend_requested = True
        self.wake()

    def _handle(self, number: signal.Signals, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._previous_handlers[number] = signal.signal(number, handler)

    def _set_mode(self) -> None:
        if self._fd is not None:
            self._mode = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)

    def _restore_mode(self) -> None:
        if self._fd is not None and self._mode is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._mode)
            self._mode = None


def _descriptor(stdin: TextIO) -> int | None:
    """Return the file descriptor of a terminal; None for other streams and in a background job, which must not read."""
    if not stdin.isatty():
        return None
    try:
        descriptor = stdin.fileno()
        return descriptor if os.tcgetpgrp(descriptor) == os.getpgrp() else None
    except OSError:
        return None


def _exit(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
