"""Commands of ours that are killed, that act at once, or that drain a worker."""

import json
import signal
import subprocess
from collections import Counter
from functools import partial
from pathlib import Path
from typing import ClassVar

from morag_queue.local.waiting import until
from tests.support.watch_process import start_watch_with_lease

from .fault import LANE, Fault

FIRST, SECOND = "worker-cpu-1", "worker-cpu-2"
KILLS, LONGEST_SECONDS = 6, 0.4
"""A command is killed so often, the last time after so long; most end before."""


class KilledCommands(Fault):
    number = 9
    name = "`submit`, `task move`, `failover` and `rebalance` killed at random points, then run again"
    promise = "each message in one place; the next run finishes"
    is_shown_on_plain = False
    rounds = 1500
    quick_rounds = 300
    conf: ClassVar = {"worker_prefetch_multiplier": 3}

    def prepare(self) -> None:
        self.start(FIRST)
        self.running = self.hold(level=0)
        self.until_started(self.running)
        reserved = [self.send("t.later") for _ in range(2)]
        self.until_held(3)
        self.before = [self.running, *reserved]
        self.fleet.kill(FIRST, signal.SIGSTOP)
        self.may_run_twice = {self.running}
        self.ids = [f"row-{number:05d}" for number in range(self.planned_rounds)]

    def inject(self) -> None:
        self.kills = 0
        self.attempted += self.ids
        self.finish("submit", "--from", str(self.rows()), ids=[])
        self.acknowledged |= set(self.ids)
        self.finish("task", "move", "--queue", LANE, "--to-worker", FIRST, "--yes", "--force")
        self.fleet.kill(FIRST)
        self.finish("failover", FIRST)
        self.finish("rebalance")
        self.notes.append(f"{self.kills} kills")
        self.release()
        self.start(SECOND, concurrency=2)

    def rows(self) -> Path:
        source = self.fleet.dir / "note.txt"
        source.write_text("one page")
        file = self.fleet.dir / "rows.jsonl"
        file.write_text("".join(json.dumps({"source": str(source), "task_id": name}) + "\n" for name in self.ids))
        return file

    def finish(self, *command: str, ids: list[str] | None = None) -> None:
        """Kill the command ever later in its run, then let it finish; no message is ever lost or doubled."""
        expected = {*self.before, *(self.ids if ids is None else ids)}
        for share in range(1, KILLS + 1):
            started = self.fleet.start_command(*command)
            try:
                started.process.wait((share - self.chance.random()) / KILLS * LONGEST_SECONDS)
            except subprocess.TimeoutExpired:
                started.process.kill()
                started.process.wait()
                self.kills += 1
            self.assert_in_one_place(expected)
            self.fleet.redis.delete(self.fleet.keys.lease)  # as its expiry does
        self.fleet.start_command(*command).process.wait(60)
        self.assert_in_one_place({*self.before, *self.ids})

    def assert_in_one_place(self, expected: set[str]) -> None:
        redis, keys = self.fleet.redis, self.fleet.keys
        places = [json.loads(record)[0]["headers"]["id"] for record in redis.hvals(keys.unacked)]
        for key in redis.scan_iter(match=f"{LANE}*", _type="list"):
            places += [json.loads(raw)["headers"]["id"] for raw in redis.lrange(key, 0, -1)]
        doubled = {task_id: count for task_id, count in Counter(places).items() if count > 1}
        assert not doubled, f"in several places: {doubled}"
        assert expected <= set(places), f"in no place: {expected - set(places)}"


class ActingAtOnce(Fault):
    number = 10
    name = "two `watch`, two `failover` and two `rebalance` at once; the leader, stopped past its lease, wakes"
    promise = "each message moved once; a stale leader changes nothing"
    is_shown_on_plain = False
    rounds = 200
    quick_rounds = 100
    conf: ClassVar = {"worker_prefetch_multiplier": 3}

    def prepare(self) -> None:
        self.leader = start_watch_with_lease(self.fleet, "watch-1", lease_seconds=3.0)
        self.leader.wait_for("leading")
        self.start(FIRST)
        self.running = self.hold(level=0)
        self.until_started(self.running)
        self.may_run_twice = {self.running}
        self.reserved = [self.send("t.later") for _ in range(2)]
        self.until_held(3)
        self.pinned = [self.send("t.later", lane=self.own_lane(FIRST)) for _ in range(self.planned_rounds)]
        self.fleet.redis.sadd(self.fleet.keys.lanes, self.own_lane(FIRST))

    def inject(self) -> None:
        self.leader.signal(signal.SIGSTOP)
        other = start_watch_with_lease(self.fleet, "watch-2", lease_seconds=3.0)
        self.fleet.kill(FIRST)
        commands = [("failover", FIRST), ("failover", FIRST), ("rebalance",), ("rebalance",)]
        started = [self.fleet.start_command(*command) for command in commands]
        for command in started:
            status = command.process.wait(60)
            assert status in (0, 3, 5, 7), f"{command.args} exited with {status}: {command.stderr}"
        other.wait_for("leading")
        self.release()
        self.start(SECOND, concurrency=2)
        self.leader.signal(signal.SIGCONT)
        self.leader.wait_for("lease_lost")

    def check(self) -> None:
        starts = self.starts()
        several = {task for task in (*self.reserved, *self.pinned) if starts[task] != 1}
        assert not several, f"started more than once: {several}"
        assert not self.leader.events("worker_failed_over"), "the stale leader failed over"
        assert len(self.leader.events("turn")) == 0, "the stale leader made a turn"


class Drain(Fault):
    number = 11
    name = "a worker with running, prefetched and ETA tasks is drained while more arrives"
    promise = "nothing starts there after `drained`; none lost, none twice"
    conf: ClassVar = {"worker_prefetch_multiplier": 4}

    def prepare(self) -> None:
        self.start(FIRST)
        self.running = self.hold(level=0)
        self.until_started(self.running)
        self.send("t.later", countdown=2)
        for _ in range(2):
            self.send("t.later")
        self.until_held(4)

    def inject(self) -> None:
        if self.is_plain:
            control = self.fleet.producer.control
            node = f"{FIRST}@{self.fleet.events('start')[0]['worker'].partition('@')[2]}"
            for queue in (LANE, self.own_lane(FIRST)):
                control.cancel_consumer(queue, destination=[node], reply=True)
            self.send_late()
        else:
            command = self.fleet.start_command("drain", FIRST, "--allow-last", "--deadline", "30s", "--json")
            until(lambda: self.fleet.redis.hexists(self.fleet.keys.cordons, FIRST), 20, partial(str, command.stderr))
            self.send_late()
        before = set(self.starts())
        self.release()
        if not self.is_plain:  # until it answers, the worker may start what it had reserved
            assert command.expect(0).json["state"] == "drained"
            before = set(self.starts())
        self.start(SECOND)
        self.settle()
        there = {event["task"] for event in self.fleet.events("start") if event["worker"].startswith(f"{FIRST}@")}
        self.late = there - before
        self.notes.append(f"{len(self.late)} started there afterwards")

    def send_late(self) -> None:
        for _ in range(3):
            self.send("t.later")

    def check(self) -> None:
        assert not self.late, f"started on the drained worker: {self.late}"
        assert set(self.starts().values()) == {1}
