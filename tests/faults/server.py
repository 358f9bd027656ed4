"""The server: lost connections, a restart, timeouts, and refused writes."""

import time
from functools import partial
from typing import ClassVar

from morag_queue.local.waiting import until

from .fault import Fault

FIRST, SECOND = "worker-cpu-1", "worker-cpu-2"


class LongTask(Fault):
    number = 3
    name = "tasks that run for three visibility timeouts, on two workers"
    promise = "each starts once"
    SECONDS = 1
    transport: ClassVar = {
        **Fault.transport, "visibility_timeout": SECONDS, "unacked_restore_interval": 0.2,
        "unacked_restore_throttle": 1,
    }  # fmt: skip
    conf: ClassVar = {"worker_prefetch_multiplier": 2}

    def prepare(self) -> None:
        self.start(FIRST, SECOND)
        self.tasks = [self.hold() for _ in range(3)]
        until(lambda: len(self.fleet.counts("start")) == 2, 20, lambda: f"not started: {self.fleet.where()}")

    def inject(self) -> None:
        began = self.now()
        until(lambda: self.now() - began > 3 * self.SECONDS, 20, "the server's clock stands still")
        self.release()

    def settle(self) -> None:
        super().settle()
        self.notes.append(f"{self.fleet.counts('start').total()} starts of {len(self.tasks)} tasks")

    def check(self) -> None:
        assert set(self.starts().values()) == {1}, f"starts: {self.starts()}"


class LostConnection(Fault):
    """A worker runs a task, has prefetched six and waits for more when it loses its connections."""

    persist = True
    conf: ClassVar = {"worker_prefetch_multiplier": 8}

    def prepare(self) -> None:
        self.loop = self.watch()
        self.start(FIRST)
        self.running = self.hold(level=0)
        self.until_started(self.running)
        self.waiting = [self.send("t.add", 1, number) for number in range(6)]
        self.until_held(7)
        self.may_run_twice = {self.running}

    def inject(self) -> None:
        before = self._connections()
        self.interrupt()
        until(lambda: self._connections() > before, 60, partial(self.fleet.log, FIRST))
        if not self.is_plain:  # Celery stops the process of a late-acknowledged task, which starts again
            self.until_started(self.running, 2)
        self.release()

    def interrupt(self) -> None:
        raise NotImplementedError

    def _connections(self) -> int:
        """How often it has connected, or failed to: plain Celery may end, once its task has."""
        log = self.fleet.log(FIRST)
        return log.count("Connected to") + log.count("Unrecoverable error")

    def check(self) -> None:
        assert self.loop is not None
        assert self.loop.process.poll() is None, "watch has ended"
        assert self.operate("stats")["workers"], "stats shows no worker"


class Blip(LostConnection):
    number = 7
    name = "every connection is closed"
    promise = "all reconnect; only what ran may run twice"

    def interrupt(self) -> None:
        self.fleet.redis.client_kill_filter(_type="normal", skipme=True)


class ServerKilled(LostConnection):
    number = 7
    name = "the server is killed and restarted (AOF)"
    promise = "all reconnect; nothing stays stuck"

    def interrupt(self) -> None:
        self.fleet.server.kill()
        self.fleet.server.start()


class RefusedWrites(Fault):
    """Two workers, one of whose tasks retries, when the server begins to refuse writes; work waits, too."""

    number = 12
    persist = True
    SECONDS = 5.0

    def prepare(self) -> None:
        self.start(FIRST, SECOND)
        self.running = self.hold(level=0)
        self.retrying = self.send("t.retry_after", str(self.fleet.release_file()), level=0)
        self.until_started(self.running)
        self.until_started(self.retrying)
        self.waiting = [self.send("t.add", 1, number) for number in range(10)]
        self.may_run_twice = {self.running}

    def inject(self) -> None:
        self.refuse()
        self.release()
        end = time.monotonic() + self.SECONDS
        while time.monotonic() < end:
            self.restart_dead()
            time.sleep(0.2)
        self.accept()

    def refuse(self) -> None:
        raise NotImplementedError

    def accept(self) -> None:
        raise NotImplementedError

    def check(self) -> None:
        assert not self.notes, self.notes


class FullServer(RefusedWrites):
    name = "the server is full (maxmemory, noeviction) for 5 s"
    promise = "workers wait; none lost, also no retry"

    def refuse(self) -> None:
        self.fleet.redis.config_set("maxmemory-policy", "noeviction")
        self.fleet.redis.config_set("maxmemory", "1mb")

    def accept(self) -> None:
        self.fleet.redis.config_set("maxmemory", "0")


class ReadOnlyServer(RefusedWrites):
    name = "the server becomes a read-only replica for 5 s"
    promise = "workers wait; none lost"

    def refuse(self) -> None:
        self.fleet.redis.replicaof("127.0.0.1", "1")

    def accept(self) -> None:
        self.fleet.redis.replicaof("no", "one")


class FlushedScripts(Fault):
    number = 12
    name = "SCRIPT FLUSH under load"
    promise = "done whole, once"
    rounds = 20
    quick_rounds = 5

    def prepare(self) -> None:
        self.start(FIRST, SECOND)

    def inject(self) -> None:
        for _ in range(self.planned_rounds):
            for _ in range(20):
                self.send("t.add", 1, 1)
            self.fleet.redis.script_flush()


class WrongType(Fault):
    number = 12
    name = "a counter of ours has the wrong type while tasks run"
    promise = "an end is written whole or not at all, and later"
    is_shown_on_plain = False

    def prepare(self) -> None:
        self.start(FIRST)
        self.running = self.hold(level=0)
        self.until_started(self.running)
        self.waiting = [self.send("t.add", 1, number) for number in range(5)]

    def inject(self) -> None:
        totals = self.fleet.keys.totals
        self.fleet.redis.delete(totals)
        self.fleet.redis.set(totals, "not a hash")
        self.release()
        until(lambda: self.running in self.fleet.counts(), 20, lambda: f"not ended: {self.fleet.where()}")
        self.until_refused()
        self.fleet.redis.delete(totals)

    def until_refused(self) -> None:
        """Wait until the worker has said that it cannot write the end."""
        until(lambda: "WRONGTYPE" in self.fleet.log(FIRST), 20, partial(self.fleet.log, FIRST))
