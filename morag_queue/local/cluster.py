"""A throw-away fleet: a real Valkey server and real Celery workers, for `demo` and the end-to-end tests.

    with Cluster() as cluster:
        cluster.start_worker("worker-gpu-1", "gpu")
        ...
        cluster.kill("worker-gpu-1")

All of it is gone at the end, see `Nest`.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import redis

from morag_queue.broker.keys import Keys
from morag_queue.core.model import Capability
from morag_queue.errors import MoragQueueError

from . import prefork
from .nest import Nest
from .prefork import Process
from .server import Server
from .waiting import until

APP = "morag_queue.local.app"
READY_SECONDS = 60.0
STOP_SECONDS = 30.0


class Cluster:
    """`env` is added to the environment of every worker, `config` to the server's options; `persist` as of `Server`.

    Settings of the user (files, MORAG_QUEUE_*) do not reach the workers: what `env` says is all there is.
    """

    def __init__(
        self,
        *,
        persist: bool = False,
        config: Mapping[str, str | int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.nest = Nest()
        self.workers: dict[str, Process] = {}
        prefork.shared()  # it imports while the server starts
        try:
            self.server = Server(self.nest, persist=persist, config=config)
            self.redis = redis.Redis.from_url(self.server.url, decode_responses=True)
        except BaseException:
            self.nest.close()
            raise
        self.dir = self.nest.dir
        self.env = {**_without_settings(os.environ), **self.environment, **(env or {})}
        self._keys = Keys(self.env.get("MORAG_QUEUE_NAMESPACE", "mq"))

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs in its environment to find this fleet and no settings of the user."""
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
        """Starts `celery -A app worker -n name@%h`; with `wait`, returns once it is registered and beating.

        Unless it `gossips` it does not talk to the others at its start, which takes a second. Unless it `forks` it is
        a fresh process, as a person starts one, which takes two.

        Raises MoragQueueError with the end of its log when it ends before that. Its log is `<name>.log` in `dir`.
        """
        if name in self.workers:
            raise MoragQueueError(f"{name} runs already in this cluster: stop() or kill() it first")
        args = [
            *("-A", app, "worker", "-n", f"{name}@%h", "-c", str(concurrency)),
            *("-l", "INFO", *(() if gossips else ("--without-gossip", "--without-mingle")), *options),
        ]
        env = {**self.env, "MORAG_WORKER_TYPE": str(capability), **(env or {})}
        if forks:
            process = self.nest.fork(name, "celery", args, env)
        else:
            process = self.nest.spawn(name, [sys.executable, "-m", "celery", *args], env)
        self.workers[name] = process
        if wait:
            self.wait_for(name)
        return process

    def start_watch(self, *options: str) -> None:
        """Starts `morag-queue watch`, which looks after the fleet until the end; its log is `watch.log`."""
        self.nest.fork("watch", "morag_queue", ["watch", *options], self.env)

    def wait_for(self, *names: str) -> None:
        """Until these workers, just started, are registered and beating."""
        for name in names:
            until(lambda name=name: self._is_ready(name), READY_SECONDS, lambda name=name: self._not_ready(name))  # type: ignore[misc]

    def kill(self, name: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """Signals a worker and its pool's children at once, as a machine that dies would; SIGKILL waits for the end."""
        process = self.workers[name]
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, sig)
        if sig == signal.SIGKILL:
            process.wait()
            del self.workers[name]

    def stop(self, *names: str) -> None:
        """Warm shutdown of these workers (default: all), together; SIGKILL for what is still there after 30 s."""
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
        """All that a worker (or `valkey`) has printed."""
        return self.nest.log(name).read_text("utf-8", "replace")

    def _is_ready(self, name: str) -> bool:
        process = self.workers[name]
        if process.poll() is not None:
            raise MoragQueueError(
                f"{name} ended at its start with {process.returncode}:", *self.nest.last_lines(name).splitlines()
            )
        record, beat = (self.redis.hget(key, name) for key in (self._keys.workers, self._keys.beats))
        return record is not None and beat is not None and _pid(record) == process.pid

    def _not_ready(self, name: str) -> str:
        return f"{name} did not register:\n{self.nest.last_lines(name)}"

    # -- the end

    def close(self) -> None:
        """Everything ends at once, unasked: what it leaves behind is deleted anyway. Safe to call twice."""
        self.redis.close()
        self.nest.close()

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
