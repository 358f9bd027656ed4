"""`stats --live`: refresh, render and handle keys until the user quits; without a terminal, print repeatedly."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING

from morag_queue.errors import BrokerError, BrokerUnreachable, ExitStatus, MoragQueueError, UsageError
from morag_queue.operations.live_stats import FleetWatcher, LiveFrame
from morag_queue.view.live_state import LiveState, on_key

from .context import CliContext
from .terminal import TerminalInput

if TYPE_CHECKING:
    from rich.console import Console

_MIN_INTERVAL_S = 0.1
_SVG_TITLE = "morag-queue stats --live"
_SVG_SIZE = (120, 40)
"""Columns and rows of an SVG when stdout is not a terminal."""
_SVG_MIN_SIZE = (40, 12)


@dataclass(frozen=True)
class LiveOptions:
    """`interval` is in seconds; `count` is the number of refreshes, 0 for no limit; `svg` receives the last screen."""

    interval: float = 2.0
    count: int = 0
    svg: Path | None = None


def run_live(ctx: CliContext, watcher: FleetWatcher, options: LiveOptions) -> ExitStatus:
    """Show the fleet until `q`, Ctrl-C or `count`. A broker error of the first poll is raised, later ones are shown."""
    if options.interval < _MIN_INTERVAL_S:
        raise UsageError(f"--interval {options.interval:g}s is too short: use at least {_MIN_INTERVAL_S:g}s")
    frame = watcher.observe()
    on_terminal = ctx.console.is_terminal and not ctx.json
    with TerminalInput(ctx.environment.stdin if on_terminal else None) as terminal:
        if on_terminal:
            frame = _LiveScreen(ctx.console, terminal, watcher, options, frame).run()
        else:
            frame = _print_frames(ctx, terminal, watcher, options, frame)
    if options.svg is not None:
        _save_svg(ctx, options.svg, frame)
    return ExitStatus.OK


def _save_svg(ctx: CliContext, path: Path, frame: LiveFrame) -> None:
    """Save the frame in the size of the terminal; COLUMNS and LINES take precedence."""
    from morag_queue.view.live import render
    from morag_queue.view.svg import svg

    default = ctx.console.size if ctx.console.is_terminal else _SVG_SIZE
    given = [ctx.environment.variables.get(name, "") for name in ("COLUMNS", "LINES")]
    width, height = (
        max(int(text) if text.isdecimal() else size, least)
        for text, size, least in zip(given, default, _SVG_MIN_SIZE, strict=True)
    )
    text = svg(render(frame, width, height, LiveState()), _SVG_TITLE, width, height)
    (ctx.environment.cwd / path).write_text(text, encoding="utf-8")
    ctx.note(f"wrote {path}")


def _print_frames(
    ctx: CliContext, terminal: TerminalInput, watcher: FleetWatcher, options: LiveOptions, frame: LiveFrame
) -> LiveFrame:
    """Print one frame per interval and return the last. A broker error is reported once, then polling continues."""
    printed, has_failed = 0, False
    while True:
        due = monotonic() + options.interval
        if not has_failed:
            printed += 1
            _print_frame(ctx, frame)
        if options.count and printed >= options.count:
            return frame
        while (remaining := due - monotonic()) > 0:
            terminal.wait(remaining)
            if terminal.suspend_requested:
                terminal.suspend()
        try:
            frame, has_failed = watcher.observe(), False
        except (BrokerUnreachable, BrokerError) as error:
            if not has_failed:
                ctx.warn(f"{error}; retrying every {options.interval:g}s")
            has_failed = True


def _print_frame(ctx: CliContext, frame: LiveFrame) -> None:
    from morag_queue.view.output import dumps

    ctx.environment.has_answered = True
    if ctx.json:
        ctx.stdout.write(dumps(frame.stats) + "\n")
    else:
        from morag_queue.view.stats import stats_view
        from morag_queue.view.text import local_time

        ctx.stdout.write(f"{local_time(frame.stats.taken_at, now=0)}\n")
        ctx.console.print(stats_view(frame.stats))
        ctx.stdout.write("\n")
    ctx.stdout.flush()


class _Poller(Thread):
    """Polls the broker on request, in a thread of its own, so that a hanging broker does not block the keys."""

    def __init__(self, watcher: FleetWatcher, wake: Callable[[], None]) -> None:
        super().__init__(name="morag-queue-live", daemon=True)
        self._watcher, self._wake = watcher, wake
        self._requested = Event()
        self._result: LiveFrame | MoragQueueError | None = None

    def request(self) -> None:
        self._requested.set()

    def take_result(self) -> LiveFrame | MoragQueueError | None:
        """Return the result of the last poll once, then None until the next one."""
        result, self._result = self._result, None
        return result

    def run(self) -> None:
        while True:
            self._requested.wait()
            self._requested.clear()
            try:
                self._result = self._watcher.observe()
            except MoragQueueError as error:
                self._result = error
            except Exception as error:  # noqa: BLE001  an unexpected error must not freeze the screen
                self._result = MoragQueueError(f"{type(error).__name__}: {error}")
            self._wake()


class _LiveScreen:
    """The live view on the alternate screen of a terminal."""

    def __init__(
        self,
        console: "Console",
        terminal: TerminalInput,
        watcher: FleetWatcher,
        options: LiveOptions,
        frame: LiveFrame,
    ) -> None:
        self._console, self._terminal, self._options = console, terminal, options
        self._poller = _Poller(watcher, terminal.wake)
        self._frame, self._polled_at, self._frames = frame, monotonic(), 1
        self._state = LiveState()

    def run(self) -> LiveFrame:
        self._poller.start()
        while not self._state.quit:
            with self._console.screen(hide_cursor=True):
                self._refresh_until_suspended()
            if self._terminal.suspend_requested:
                self._terminal.suspend()
        return self._frame

    def _refresh_until_suspended(self) -> None:
        due = monotonic() + self._options.interval
        while not self._terminal.suspend_requested:
            self._draw()
            if self._state.quit or 0 < self._options.count <= self._frames:
                self._state = replace(self._state, quit=True)
                return
            for key in self._terminal.wait(due - monotonic()):
                self._state = on_key(self._state, key)
            self._take_result()
            if monotonic() >= due:
                due = monotonic() + self._options.interval
                if not self._state.paused:
                    self._poller.request()

    def _take_result(self) -> None:
        match self._poller.take_result():
            case LiveFrame() as frame:
                self._frame, self._polled_at, self._frames = frame, monotonic(), self._frames + 1
                self._state = replace(self._state, error="")
            case MoragQueueError() as error:
                self._state = replace(self._state, error=str(error))

    def _draw(self) -> None:
        from rich.control import Control

        from morag_queue.view.live import render

        width, height = self._console.size
        state = replace(self._state, age_s=monotonic() - self._polled_at)
        with self._console:  # one write, so that no half-drawn screen is visible
            self._console.control(Control.home())
            self._console.print(render(self._frame, width, height, state), end="")
