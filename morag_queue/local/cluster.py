"""A temporary fleet for `demo` and the end-to-end tests: a real Valkey server and real Celery workers.

    with Cluster() as cluster:
        cluster.start_worker("worker-gpu-1", "gpu")
        ...
        cluster.kill("worker-gpu-1")

Everything is removed at the end, see `Sandbox`.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from morag_queue.broker.keys import Keys
from morag_queue.core.model import Capability
from morag_queue.errors import MoragQueueError

from . import fork_server
from .fork_server import Process
from .sandbox import Sandbox
from .server import Server
from .waiting import until

APP = "morag_queue.local.app"
READY_SECONDS = 60.0
STOP_SECONDS = 30.0


class Cluster:
    """A fleet. `env` extends the environment of every worker; for `config`, the options of the server, and `binary` see
    `Server`.

    The user's own settings (files, MORAG_QUEUE_*) do not reach the workers; only `env` does.
    """

    def __init__(
        self,
        *,
        persist: bool = False,
        config: Mapping[str, str | int] | None = None,
        env: Mapping[str, str] | None = None,
        binary: Path | None = None,
    ) -> None:
        self.sandbox = Sandbox()
        self.workers: dict[str, Process] = {}
        fork_server.shared()  # imports while the server starts
        try:
            self.server = Server(self.sandbox, persist=persist, config=config, binary=binary)
            self.redis = redis.Redis.from_url(self.server.url, decode_responses=True)
        except BaseException:
            self.sandbox.close()
            raise
        self.dir = self.sandbox.dir
        self.env = {**_without_settings(os.environ), **self.environment, **(env or {})}
        self._keys = Keys(self.env.get("MORAG_QUEUE_NAMESPACE", "mq"))

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a command that uses this fleet and ignores the user's settings."""
        return {"REDIS_URL": self.url, "XDG_CONFIG_HOME": str(self.dir / "config")}

    # -- workers

    def start_worker(
        self,
        name: str,
        capability: Capability | str = Capability.CPU,
        *,
        concurrency: int = 1,
        app: str = APP,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        gossips: bool = False,
        wait: bool = True,
        forks: bool = True,
    ) -> Process:
        """Start `celery -A app worker -n name@%h`; with `wait`, return once it has registered and sent a heartbeat.

        `gossips`: with gossip and mingle, which add a second. `forks=False`: a new process as a user starts it, which
        adds two. The log is `<name>.log` in `dir`. Raises MoragQueueError with the end of the log if it exits early.
        """
        if name in self.workers:
            raise MoragQueueError(f"{name} already runs in this cluster: call stop() or kill() first")
        args = [
            *("-A", app, "worker", "-n", f"{name}@%h", "-c", str(concurrency)),
            *("-l", "INFO", *(() if gossips else ("--without-gossip", "--without-mingle")), *options),
        ]
        env = {**self.env, "MORAG_WORKER_TYPE": str(capability), **(env or {})}
        if forks:
            process = self.sandbox.fork(name, "celery", args, env)
        else:
            process = self.sandbox.spawn(name, [sys.executable, "-m", "celery", *args], env)
        self.workers[name] = process
        if wait:
            self.wait_for(name)
        return process

    def start_watch(self, *options: str) -> None:
        """Start `morag-queue watch`; its log is `watch.log`."""
        self.sandbox.fork("watch", "morag_queue", ["watch", *options], self.env)

    def wait_for(self, *names: str) -> None:
        """Wait until these workers have registered and sent a heartbeat."""
        for name in names:
            until(lambda name=name: self._is_ready(name), READY_SECONDS, lambda name=name: self._not_ready(name))  # type: ignore[misc]

    def kill(self, name: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """Signal a worker and its pool at once, as if its host had died; after SIGKILL, wait for its end."""
        process = self.workers[name]
        with suppress(ProcessLookupError):  # it has ended already
            os.killpg(process.pid, sig)
        if sig == signal.SIGKILL:
            process.wait()
            del self.workers[name]

    def stop(self, *names: str) -> None:
        """Shut down these workers (default: all) warmly, in parallel; SIGKILL those that remain after 30 s."""
        leaving = {name: self.workers[name] for name in names or tuple(self.workers)}
        for process in leaving.values():
            process.terminate()
        for name, process in leaving.items():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill(name)
            self.workers.pop(name, None)

    def log(self, name: str) -> str:
        """The whole log of a worker, of `valkey` or of `watch`."""
        return self.sandbox.log(name).read_text("utf-8", "replace")

    def _is_ready(self, name: str) -> bool:
        process = self.workers[name]
        if process.poll() is not None:
            raise MoragQueueError(
                f"{name} exited at its start with {process.returncode}:", *self.sandbox.last_lines(name).splitlines()
            )
        record, beat = (self.redis.hget(key, name) for key in (self._keys.workers, self._keys.beats))
        return record is not None and beat is not None and _pid(record) == process.pid

    def _not_ready(self, name: str) -> str:
        return f"{name} did not register:\n{self.sandbox.last_lines(name)}"

    # -- shutdown

    def close(self) -> None:
        """Kill everything at once; its data is deleted anyway. Safe to call twice."""
        self.redis.close()
        self.sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pid(record: Any) -> int:
    pid: int = json.loads(record)["pid"]
    return pid


def _without_settings(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith("MORAG_QUEUE_")}
