"""`morag-queue watch` as a process of a fleet that can be stopped, continued and killed.

`python -m tests.support.watch_process LEASE_SECONDS CLOCK_OFFSET_SECONDS` runs one with a wrong clock.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from morag_queue.local.cluster import Cluster
from morag_queue.local.fork_server import Process
from morag_queue.local.waiting import until


class WatchProcess:
    """One watch in the sandbox of a fleet; its log lines are JSON."""

    def __init__(self, fleet: Cluster, name: str, module: str, args: Sequence[str], env: dict[str, str] | None) -> None:
        self.fleet, self.name = fleet, name
        self.process: Process = fleet.sandbox.fork(name, module, args, {**fleet.env, **(env or {})})

    @property
    def lines(self) -> list[dict[str, Any]]:
        text = self.fleet.sandbox.log(self.name).read_text("utf-8", "replace")
        whole = text[: text.rfind("\n") + 1].splitlines()
        return [json.loads(line) for line in whole if line.startswith("{")]

    def events(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def wait_for(self, event: str, count: int = 1, seconds: float = 30) -> dict[str, Any]:
        until(
            lambda: len(self.events(event)) >= count, seconds,
            lambda: f"{self.name}: no {event}: {self.fleet.sandbox.last_lines(self.name, 30)}",
        )  # fmt: skip
        return self.events(event)[count - 1]

    def signal(self, sig: signal.Signals) -> None:
        self.process.send_signal(sig)
        if sig in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(20)


def start_watch(fleet: Cluster, *args: str, name: str = "watch", env: dict[str, str] | None = None) -> WatchProcess:
    """Start `morag-queue watch *args`."""
    return WatchProcess(fleet, name, "morag_queue", ["watch", *args], env)


def start_watch_with_lease(
    fleet: Cluster, name: str, *, lease_seconds: float = 15.0, clock_offset: float = 0.0
) -> WatchProcess:
    """Start a watch with that lease, whose wall clock is off by `clock_offset` seconds."""
    args = [repr(lease_seconds), repr(clock_offset)]
    return WatchProcess(fleet, name, "tests.support.watch_process", args, {"PYTHONUNBUFFERED": "1"})


def main(lease_seconds: float, clock_offset: float) -> None:
    real_time = time.time
    time.time = lambda: real_time() + clock_offset
    from pathlib import Path
    from threading import Event

    from morag_queue.broker.redis import RedisBroker
    from morag_queue.settings import load
    from morag_queue.watch.log import Log
    from morag_queue.watch.loop import Watch

    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    broker = RedisBroker(load({}, os.environ, Path.cwd()).settings)
    Watch(broker, who="ann@here", emit=Log(sys.stdout, json=True), lease_seconds=lease_seconds).run(stop)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
