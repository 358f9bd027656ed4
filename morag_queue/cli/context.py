"""The outside world of a command: streams, environment variables, settings, broker and output.

`Environment` is the process itself; tests pass their own. `CliContext` adds the options that all commands share.
No other module reads `os.environ`, `sys.stdout` or the terminal.
"""

import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypedDict

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console, RenderableType

    from morag_queue.broker.redis import RedisBroker
    from morag_queue.settings import LoadedSettings, Settings

_PIPE_COLUMNS = 1000
"""Width when stdout is not a terminal and COLUMNS is unset, so that pipes receive unwrapped rows."""


def _width(stream: TextIO, variables: Mapping[str, str]) -> int:
    """Return the columns of a terminal, COLUMNS first; 0 if the stream is no terminal."""
    if not stream.isatty():
        return 0
    if (columns := variables.get("COLUMNS", "")).isdecimal():
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return 0


@dataclass
class Environment:
    """`has_answered`: the answer is already on stdout. `broker_url`: the URL for messages, without its password."""

    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    variables: Mapping[str, str]
    cwd: Path
    has_answered: bool = False
    broker_url: str = ""

    @classmethod
    def of_process(cls) -> "Environment":
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a locale that cannot encode a character must not fail the command
                stream.reconfigure(errors="backslashreplace")
        return cls(sys.stdin, sys.stdout, sys.stderr, os.environ, Path.cwd())

    def message(self, line: str, *, wrap: bool = True) -> None:
        """Write a line to stderr; on a terminal, break it between words. `wrap` is False for commands to copy."""
        width = _width(self.stderr, self.variables) if wrap else 0
        if len(line) > width > 0:
            indent = " " * (len(line) - len(line.lstrip()))
            lines = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
            line = "\n".join(lines)
        self.stderr.write(line + "\n")


@dataclass(frozen=True)
class CommonOptions:
    """Options that commands share. A command without an option keeps its default."""

    redis_url: str | None = None
    config: str | None = None
    profile: str | None = None
    json: bool = False
    no_color: bool = False
    quiet: bool = False
    debug: bool = False
    dry_run: bool = False
    yes: bool = False
    reason: str = ""


class ChangeOptions(TypedDict):
    """Keyword arguments of every operation that changes the fleet."""

    who: str
    reason: str
    dry_run: bool


class CliContext:
    """First argument of every command."""

    def __init__(self, environment: Environment, options: CommonOptions) -> None:
        self.environment = environment
        self.options = options

    @property
    def json(self) -> bool:
        return self.options.json

    @property
    def quiet(self) -> bool:
        return self.options.quiet

    @property
    def user(self) -> str:
        """`user@host` for the journal. The environment takes precedence over the password database."""
        import pwd
        import socket

        variables, uid = self.environment.variables, os.getuid()
        user = next((variables[name] for name in ("SUDO_USER", "USER", "LOGNAME") if variables.get(name)), "")
        if not user:
            try:
                user = pwd.getpwuid(uid).pw_name
            except KeyError:  # containers may run under a uid without a name
                user = f"uid {uid}"
        return f"{user}@{socket.gethostname()}"

    @property
    def change(self) -> ChangeOptions:
        return {"who": self.user, "reason": self.options.reason, "dry_run": self.options.dry_run}

    @property
    def stdout(self) -> TextIO:
        return self.environment.stdout

    @cached_property
    def loaded(self) -> "LoadedSettings":
        """Settings and their origins. Raises SettingsError."""
        from morag_queue.settings import load, mask_url

        flags = {"redis_url": self.options.redis_url, "config": self.options.config, "profile": self.options.profile}
        loaded = load(flags, self.environment.variables, self.environment.cwd)
        self.environment.broker_url = mask_url(loaded.settings.redis_url)
        return loaded

    @property
    def settings(self) -> "Settings":
        return self.loaded.settings

    @cached_property
    def broker(self) -> "RedisBroker":
        from morag_queue.broker.redis import RedisBroker

        return RedisBroker(self.settings)

    @cached_property
    def quick_broker(self) -> "RedisBroker":
        """The broker for verbs that must start fast and run once, see `quick_client`."""
        from morag_queue.broker.quick_client import quick_client
        from morag_queue.broker.redis import RedisBroker

        return RedisBroker(self.settings, quick_client(self.settings.redis_url, self.settings.broker))

    def emit(self, answer: "BaseModel | Mapping[str, Any]", human: "Callable[[], RenderableType]") -> None:
        """Print the answer once: one JSON document with --json, otherwise the result of `human`."""
        from morag_queue.view.output import emit

        self.environment.has_answered = True
        emit(self, answer, human)

    def note(self, text: str) -> None:
        """Write an informational line to stderr, unless --quiet is given."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str, *, wrap: bool = True) -> None:
        """Write a line to stderr, even with --quiet. `wrap` is False for commands to copy."""
        from morag_queue.settings import mask_url
        from morag_queue.view.text import safe

        self.environment.message(safe(mask_url(text)), wrap=wrap)

    def warn_of_broken_values(self) -> None:
        """Name the values of our keys that the command could not read, with their remedies."""
        brokers = [self.__dict__[name] for name in ("broker", "quick_broker") if name in self.__dict__]  # if connected
        for value in (value for broker in brokers for value in broker.broken):
            self.warn(f"warning: {value}", wrap=False)

    def confirm(self, question: str) -> bool:
        """Ask on stderr and return whether the user agreed. False without asking if stdin is not a terminal."""
        if not self.environment.stdin.isatty():
            return False
        self.environment.stderr.write(f"{question} [y/N] ")
        self.environment.stderr.flush()
        return self.environment.stdin.readline().strip().lower() in ("y", "yes")

    @cached_property
    def console(self) -> "Console":
        return self._console(self.environment.stdout)

    @contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show a progress bar on stderr if that is a terminal and --quiet is not given.

        Yields a function that advances the bar by a number of steps.
        """
        if self.quiet or not self.environment.stderr.isatty():
            yield lambda _: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        text = TextColumn("{task.description}", markup=False)
        with Progress(text, *columns, console=self._console(self.environment.stderr), transient=True) as bar:
            task = bar.add_task(description, total=total)
            yield lambda steps: bar.advance(task, steps)

    def _console(self, stream: TextIO) -> "Console":
        """Return a console without markup, and without colour unless the stream is a terminal that supports it."""
        from rich.console import Console

        variables = self.environment.variables
        terminal = stream.isatty() and variables.get("TERM") != "dumb"
        colour = terminal and not variables.get("NO_COLOR") and not self.options.no_color
        columns = variables.get("COLUMNS", "")
        width = int(columns) if columns.isdecimal() and int(columns) else None
        return Console(
            file=stream,
            width=width or (None if stream.isatty() else _PIPE_COLUMNS),
            force_terminal=terminal,
            force_interactive=terminal,
            no_color=not colour,
            color_system="auto" if colour else None,
            highlight=False,
            markup=False,
            emoji=False,
            _environ={**variables},
        )
