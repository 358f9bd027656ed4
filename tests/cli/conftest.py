"""The `mq` fixture runs one command in this process, like httpie's `http()`, and checks its exit status."""

import io
import json
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from morag_queue.cli import VERBS
from morag_queue.cli.context import Environment
from morag_queue.cli.run import run


@dataclass(frozen=True)
class Result:
    exit_status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Mq = Callable[..., Result]


@pytest.fixture
def mq(tmp_path: Path) -> Mq:
    """Run a command with an empty stdin, environment and directory. Fails unless the exit status is `status`."""

    def command(
        *args: str,
        status: int = 0,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        terminal: bool = False,
        verbs: Mapping[str, tuple[str, str]] = VERBS,
    ) -> Result:
        stream = Terminal if terminal else io.StringIO
        out, err = stream(), stream()
        variables = {"HOME": str(tmp_path), **(env or {})}
        environment = Environment(io.StringIO(stdin or ""), out, err, variables, tmp_path)
        with redirect_stdout(out), redirect_stderr(err):
            exit_status = run(verbs, [str(arg) for arg in args], environment)
        result = Result(exit_status, out.getvalue(), err.getvalue())
        assert exit_status == status, f"{args} ended with {exit_status}, not {status}: {result.err or result.out}"
        assert "Traceback" not in result.err or "--debug" in args
        return result

    return command
