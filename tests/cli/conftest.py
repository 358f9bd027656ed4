"""Fixtures that run commands in this process, like httpie's `http()`."""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from morag_queue.cli import VERBS
from morag_queue.cli.context import Environment
from morag_queue.cli.run import run
from tests.support.simulated_fleet import SimulatedFleet


@dataclass(frozen=True)
class Result:
    exit_status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class TerminalStream(io.StringIO):
    def isatty(self) -> bool:
        return True


Mq = Callable[..., Result]


@pytest.fixture
def mq(tmp_path: Path) -> Mq:
    """Run a command in an empty directory and environment. Fails unless the exit status is `status`.

    `terminal`: stdout and stderr are terminals. `typed`: text typed on a terminal as stdin.
    """

    def command(
        *args: str,
        status: int = 0,
        stdin: str = "",
        typed: str | None = None,
        env: Mapping[str, str] | None = None,
        terminal: bool = False,
        verbs: Mapping[str, tuple[str, str]] = VERBS,
    ) -> Result:
        stream = TerminalStream if terminal else io.StringIO
        out, err = stream(), stream()
        source = io.StringIO(stdin) if typed is None else TerminalStream(typed)
        environment = Environment(source, out, err, {"HOME": str(tmp_path), **(env or {})}, tmp_path)
        with redirect_stdout(out), redirect_stderr(err):
            exit_status = run(verbs, [str(arg) for arg in args], environment)
        result = Result(exit_status, out.getvalue(), err.getvalue())
        assert exit_status == status, f"{args} exited with {exit_status}, not {status}: {result.err or result.out}"
        assert "Traceback" not in result.err or "--debug" in args
        return result

    return command


@pytest.fixture
def fleet(mq: Mq, valkey: str) -> Mq:
    """Run a command on the broker of `sim_fleet`, as the user ann."""

    def command(*args: str, env: Mapping[str, str] | None = None, **options: Any) -> Result:
        return mq(*args, env={"REDIS_URL": valkey, "USER": "ann", **(env or {})}, **options)

    return command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty directory with a file to submit."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.txt").write_text("MoRAG " * 300)
    return tmp_path


@pytest.fixture
def join(sim_fleet: SimulatedFleet) -> Iterator[Callable[..., None]]:
    """Register a worker. If `alive`, it has a connection in its name until the end of the test."""
    with ExitStack() as stack:

        def register(name: str, capability: str = "cpu", *, alive: bool, **info: Any) -> None:
            sim_fleet.join(name, capability, client_name=f"mq.{name}", **info)
            if alive:
                connection = stack.enter_context(redis.Redis.from_url(sim_fleet.url, client_name=f"mq.{name}"))
                connection.ping()

        yield register


@pytest.fixture
def fail(sim_fleet: SimulatedFleet) -> Callable[..., None]:
    """Submit a task, run it on cpu-1 and let it fail."""

    def run_and_fail(task_id: str, error: str = "ValueError: no") -> None:
        sim_fleet.submit(task_id, source=f"https://example.org/{task_id}")
        while sim_fleet.claim("cpu-1") != task_id:
            pass
        sim_fleet.end(task_id, "failed", error)

    sim_fleet.join("cpu-1")
    return run_and_fail
