"""What a verb sees of the world outside: streams, environment, settings, and how to print.

`World` is the outside itself, one a process (a test brings its own); `CliContext` is the world plus the options that
all verbs share. Nothing else in the project looks at `os.environ`, `sys.stdout` or a terminal.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console, RenderableType

    from morag_queue.broker.redis import RedisBroker
    from morag_queue.settings import LoadedSettings, Settings

_UNCUT = 1000
"""Columns where stdout is no terminal and COLUMNS is not set: a pipe gets whole rows."""


@dataclass
class World:
    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    env: Mapping[str, str]
    cwd: Path
    answered: bool = False  # something of the answer is on stdout
    broker: str = ""  # the broker's URL without its password, for messages

    @classmethod
    def real(cls) -> "World":
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a locale without a sign must not cost the answer
                stream.reconfigure(errors="backslashreplace")
        return cls(sys.stdin, sys.stdout, sys.stderr, os.environ, Path.cwd())


@dataclass(frozen=True)
class Shared:
    """The options that verbs share; those that a verb does not have keep their defaults."""

    redis_url: str | None = None
    config: str | None = None
    json: bool = False
    no_color: bool = False
    quiet: bool = False
    debug: bool = False
    dry_run: bool = False
    yes: bool = False
    reason: str = ""


class CliContext:
    def __init__(self, world: World, options: Shared) -> None:
        self.world = world
        self.options = options

    @property
    def json(self) -> bool:
        return self.options.json

    @property
    def quiet(self) -> bool:
        return self.options.quiet

    @property
    def who(self) -> str:
        """Who changes something, for the journal: `user@host`, the user as the environment says, else the system."""
        import pwd
        import socket

        env, uid = self.world.env, os.getuid()
        user = next((env[name] for name in ("SUDO_USER", "USER", "LOGNAME") if env.get(name)), "")
        if not user:
            try:
                user = pwd.getpwuid(uid).pw_name
            except KeyError:  # a container may run as a number that has no name
                user = f"uid {uid}"
        return f"{user}@{socket.gethostname()}"

    @property
    def stdout(self) -> TextIO:
        return self.world.stdout

    @cached_property
    def loaded(self) -> "LoadedSettings":
        """The settings with their origins. Raises SettingsError."""
        from morag_queue.settings import load, mask_url

        flags = {"redis_url": self.options.redis_url, "config": self.options.config}
        loaded = load(flags, self.world.env, self.world.cwd)
        self.world.broker = mask_url(loaded.settings.redis_url)
        return loaded

    @property
    def settings(self) -> "Settings":
        return self.loaded.settings

    @cached_property
    def broker(self) -> "RedisBroker":
        from morag_queue.broker.redis import RedisBroker

        return RedisBroker(self.settings)

    def emit(self, answer: "BaseModel | Mapping[str, Any]", human: "Callable[[], RenderableType]") -> None:
        """The answer of the command, once: one JSON document with --json, else what `human` makes of it."""
        from morag_queue.view.output import emit

        self.world.answered = True
        emit(self, answer, human)

    def note(self, text: str) -> None:
        """A message that is no data: on stderr, and not with --quiet."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """A message on stderr that --quiet keeps: something went wrong, though not everything."""
        from morag_queue.settings import mask_url
        from morag_queue.view.text import safe

        self.world.stderr.write(safe(mask_url(text)) + "\n")

    def confirm(self, question: str) -> bool:
        """Whether somebody says yes: asked on stderr where stdin is a terminal; elsewhere nobody does."""
        if not self.world.stdin.isatty():
            return False
        self.world.stderr.write(f"{question} [y/N] ")
        self.world.stderr.flush()
        return self.world.stdin.readline().strip().lower() in ("y", "yes")

    @cached_property
    def console(self) -> "Console":
        return self._console(self.world.stdout)

    @contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """A progress bar on stderr, told by how much to advance; none where that is no terminal, or with --quiet."""
        if self.quiet or not self.world.stderr.isatty():
            yield lambda _: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        words = TextColumn("{task.description}", markup=False)
        with Progress(words, *columns, console=self._console(self.world.stderr), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda step: bar.advance(task, step)

    def _console(self, stream: TextIO) -> "Console":
        """Plain text unless the stream is a terminal that wants more; markup is never interpreted."""
        from rich.console import Console

        env = self.world.env
        terminal = stream.isatty() and env.get("TERM") != "dumb"
        colour = terminal and not env.get("NO_COLOR") and not self.options.no_color
        columns = env.get("COLUMNS", "")
        width = int(columns) if columns.isdecimal() and int(columns) else None
        return Console(
            file=stream,
            width=width or (None if stream.isatty() else _UNCUT),
            force_terminal=terminal,
            force_interactive=terminal,
            no_color=not colour,
            color_system="auto" if colour else None,
            highlight=False,
            markup=False,
            emoji=False,
            _environ={**env},
        )
