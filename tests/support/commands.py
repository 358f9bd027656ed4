"""Run `morag-queue` commands as forks: a command takes 0.1 s of CPU instead of 0.6."""

import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from morag_queue.local import fork_server
from morag_queue.local.fork_server import Process

_numbers = count(1)


class Command:
    """A command without stdin, started by the constructor. Its output is written to files in `directory`."""

    def __init__(self, args: tuple[str, ...], env: Mapping[str, str], directory: Path) -> None:
        self.args = args
        name = f"command-{next(_numbers)}"
        self._stdout, self._stderr = directory / f"{name}.out", directory / f"{name}.err"
        self.process: Process = fork_server.shared().start(
            "morag_queue", args, env=env, cwd=directory, stdout=self._stdout, stderr=self._stderr
        )

    @property
    def stdout(self) -> str:
        return self._stdout.read_text("utf-8")

    @property
    def stderr(self) -> str:
        return self._stderr.read_text("utf-8")

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    def expect(self, status: int = 0, seconds: float = 60) -> "Command":
        """Wait for the end; assert the exit status."""
        found = self.process.wait(seconds)
        assert found == status, f"{self.args} exited with {found}: {self.stderr or self.stdout}"
        return self
