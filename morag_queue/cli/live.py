"""`stats --live`: refresh → render → handle, until someone quits. Off a terminal: one answer after another."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING

from morag_queue.errors import BrokerError, BrokerUnreachable, ExitStatus, MoragQueueError, UsageError
from morag_queue.operations.stats import FleetWatcher, LiveFrame
from morag_queue.view.live_state import LiveState, on_key

from .context import CliContext
from .keyboard import Keyboard

if TYPE_CHECKING:
    from rich.console import Console

LEAST_INTERVAL_S = 0.1
TITLE = "morag-queue stats --live"
_PICTURE = (120, 40)
"""Columns and rows of a picture that no terminal has shown."""


@dataclass(frozen=True)
class Wanted:
    """`count`: end after so many pictures, 0 never. `svg`: where the last picture goes."""

    interval: float = 2.0
    count: int = 0
    svg: Path | None = None


def live(ctx: CliContext, watcher: FleetWatcher, wanted: Wanted) -> ExitStatus:
    """Shows the fleet until `q`, Ctrl-C or `count`. Raises what the first look raises: later ones may fail."""
    if wanted.interval < LEAST_INTERVAL_S:
        raise UsageError(f"--interval {wanted.interval:g}s is too short: at least {LEAST_INTERVAL_S:g}s")
    first = watcher.observe()
    on_terminal = ctx.console.is_terminal and not ctx.json
    with Keyboard(ctx.world.stdin if on_terminal else None) as keyboard:
        if on_terminal:
            last = _Show(ctx.console, keyboard, watcher, wanted, first).run()
        else:
            last = _lines(ctx, keyboard, watcher, wanted, first)
    if wanted.svg is not None:
        save(ctx, wanted.svg, last)
    return ExitStatus.OK


def save(ctx: CliContext, path: Path, frame: LiveFrame) -> None:
    """The picture as the terminal had it, or of an ordinary one."""
    from morag_queue.view.live import render
    from morag_queue.view.svg import svg

    columns, rows = ctx.world.env.get("COLUMNS", ""), ctx.world.env.get("LINES", "")
    width, height = ctx.console.size if ctx.console.is_terminal else _PICTURE
    width, height = (int(columns) if columns.isdecimal() else width), (int(rows) if rows.isdecimal() else height)
    width, height = max(width, 40), max(height, 12)
    text = svg(render(frame, width, height, LiveState()), TITLE, width, height)
    (ctx.world.cwd / path).write_text(text, encoding="utf-8")
    ctx.note(f"wrote {path}")


def _lines(ctx: CliContext, keyboard: Keyboard, watcher: FleetWatcher, wanted: Wanted, frame: LiveFrame) -> LiveFrame:
    """With --json a document a line, else the tables of `stats` one under the other."""
    shown, trouble = 0, ""
    while True:
        due = monotonic() + wanted.interval
        if not trouble:
            shown += 1
            _line(ctx, frame)
        if wanted.count and shown >= wanted.count:
            return frame
        while (left := due - monotonic()) > 0:
            keyboard.wait(left)
            if keyboard.wants_stop:
                keyboard.stop()
        try:
            frame, trouble = watcher.observe(), ""
        except (BrokerUnreachable, BrokerError) as error:
            if not trouble:
                ctx.warn(f"{error}; trying again every {wanted.interval:g}s")
            trouble = str(error)


def _line(ctx: CliContext, frame: LiveFrame) -> None:
    from morag_queue.view.output import dumps, iso

    ctx.world.answered = True
    if ctx.json:
        ctx.stdout.write(dumps(frame.stats) + "\n")
    else:
        from morag_queue.view.stats import stats_view

        ctx.stdout.write(f"{iso(frame.stats.taken_at)}\n")
        ctx.console.print(stats_view(frame.stats))
        ctx.stdout.write("\n")
    ctx.stdout.flush()


class _Looker(Thread):
    """Looks at the broker when asked to: one that hangs must not hold up the keys."""

    def __init__(self, watcher: FleetWatcher, wake: Callable[[], None]) -> None:
        super().__init__(name="morag-queue-live", daemon=True)
        self._watcher, self._wake = watcher, wake
        self._asked = Event()
        self._answer: LiveFrame | MoragQueueError | None = None

    def ask(self) -> None:
        self._asked.set()

    def answer(self) -> LiveFrame | MoragQueueError | None:
        """What the last look gave, once; None where there is nothing new."""
        found, self._answer = self._answer, None
        return found

    def run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            try:
                self._answer = self._watcher.observe()
            except MoragQueueError as error:
                self._answer = error
            except Exception as error:  # noqa: BLE001  a look that fails in whatever way must not freeze the picture
                self._answer = MoragQueueError(f"{type(error).__name__}: {error}")
            self._wake()


class _Show:
    """The live view on a terminal."""

    def __init__(
        self, console: "Console", keyboard: Keyboard, watcher: FleetWatcher, wanted: Wanted, first: LiveFrame
    ) -> None:
        self._console, self._keyboard, self._wanted = console, keyboard, wanted
        self._looker = _Looker(watcher, keyboard.wake)
        self._frame, self._taken, self._pictures = first, monotonic(), 1
        self._state = LiveState()

    def run(self) -> LiveFrame:
        self._looker.start()
        while not self._state.quit:
            with self._console.screen(hide_cursor=True):
                self._go_on()
            if self._keyboard.wants_stop:
                self._keyboard.stop()
        return self._frame

    def _go_on(self) -> None:
        due = monotonic() + self._wanted.interval
        while not self._keyboard.wants_stop:
            self._draw()
            if self._state.quit or 0 < self._wanted.count <= self._pictures:
                self._state = replace(self._state, quit=True)
                return
            for key in self._keyboard.wait(due - monotonic()):
                self._state = on_key(self._state, key)
            self._take_answer()
            if monotonic() >= due:
                due = monotonic() + self._wanted.interval
                if not self._state.paused:
                    self._looker.ask()

    def _take_answer(self) -> None:
        match self._looker.answer():
            case LiveFrame() as frame:
                self._frame, self._taken, self._pictures = frame, monotonic(), self._pictures + 1
                self._state = replace(self._state, trouble="")
            case MoragQueueError() as error:
                self._state = replace(self._state, trouble=str(error))

    def _draw(self) -> None:
        from rich.control import Control

        from morag_queue.view.live import render

        width, height = self._console.size
        state = replace(self._state, age_s=monotonic() - self._taken)
        with self._console:  # one write: nothing of a half-drawn picture is seen
            self._console.control(Control.home())
            self._console.print(render(self._frame, width, height, state), end="")
