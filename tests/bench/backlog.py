"""What depends on the fleet and not on the backlog: 1,000,000 queued tasks against 200,000, and the slowest call."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from time import perf_counter
from uuid import UUID

from morag_queue.broker.codec import read_record
from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.poll import FleetPoller
from morag_queue.core.balancing.state import BalancerState
from morag_queue.operations.sweep import Sweep
from morag_queue.watch.turn import PollEvidence, step, sweep_step
from tests.support.fleet import Fleet
from tests.support.simulated_fleet import SimulatedFleet

from .process import MORAG_QUEUE, seconds
from .server_use import logged_name
from .table import Measured, Row, Subject

SMALL, LARGE, WORKERS = 200_000, 1_000_000, 100
_CHUNK = 10_000


class Backlog:
    """A fleet on a server of its own with that many tasks in one list; `ids` has some of them, in order."""

    def __init__(self, fleet: Fleet, size: int) -> None:
        self.fleet, self.sim = fleet, SimulatedFleet(fleet.url)
        for number in range(WORKERS):
            self.sim.join(f"worker-{number}", slots=4)
        self.ids = fill(self.sim, size)

    def beat(self) -> None:
        """Send a heartbeat of each worker."""
        for number in range(WORKERS):
            self.sim.beat(f"worker-{number}")

    def seconds(self, *words: str) -> float:
        """The time of a command; `doctor` exits with 1 where it finds a problem."""
        return seconds([MORAG_QUEUE, *words], self.fleet.env, self.fleet.dir, statuses=(0, 1))

    def completion_seconds(self, beginning: str) -> float:
        env = {**self.fleet.env, "_MORAG_QUEUE_COMPLETE": "zsh"}
        return seconds([MORAG_QUEUE, "task", "why", beginning], env, self.fleet.dir)

    def turn_seconds(self) -> float:
        began = perf_counter()
        step(self.sim.broker, BalancerState(), PollEvidence(), term="", who="bench")
        return perf_counter() - began


def fill(sim_fleet: SimulatedFleet, size: int) -> list[str]:
    """Queue copies of one task at one level of `cpu_standard`, 10,000 a second; return every thousandth id."""
    random, pattern = Random(size), str(UUID(int=0, version=4))
    place = sim_fleet.keys.list("cpu_standard", 4), sim_fleet.keys.task(pattern)
    sim_fleet.fill([pattern])
    message, entry = sim_fleet.client.lpop(place[0]), sim_fleet.client.getdel(place[1])
    assert isinstance(message, bytes)
    assert isinstance(entry, bytes)
    known, some = read_record(entry), []
    last = known.enqueued_at if known is not None else None
    assert last is not None
    for first in range(0, size, _CHUNK):
        ids = [str(UUID(int=random.getrandbits(128), version=4)) for _ in range(first, min(first + _CHUNK, size))]
        batch = []
        for number, one in enumerate(ids, first):
            at = f"{last - (size - number) / 10_000:.3f}"
            text, record = (part.decode().replace(pattern, one).replace(str(last), at) for part in (message, entry))
            batch.append(OutgoingMessage(one, text, record, "cpu_standard", "cpu_standard", 4, False))
        assert all(sim_fleet.broker.submit(batch))
        some += ids[::1000]
    return some


def pairs() -> Iterator[Measured]:
    with ExitStack() as stack:
        large, small = (Backlog(stack.enter_context(Fleet()), size) for size in (LARGE, SMALL))
        random = Random(1)
        while True:
            for backlog in (large, small):
                backlog.beat()
            chosen = [random.choice(backlog.ids) for backlog in (large, small)]
            why = [b.seconds("task", "why", one[:8], "--json") for b, one in zip((large, small), chosen, strict=True)]
            doctor = [backlog.seconds("doctor", "--json") for backlog in (large, small)]
            tab = [backlog.completion_seconds(one[:2]) for backlog, one in zip((large, small), chosen, strict=True)]
            turns = [min(backlog.turn_seconds() for _ in range(3)) for backlog in (large, small)]
            name, slowest = slowest_call(large, chosen[0])
            print(f"  slowest call: {name}, {slowest:.1f} ms", file=sys.stderr, flush=True)
            yield {
                "why": (1000 * why[0], 1000 * why[1]),
                "doctor": (1000 * doctor[0], 1000 * doctor[1]),
                "completion": (1000 * tab[0], 1000 * tab[1]),
                "turn": (1000 * turns[0], 1000 * turns[1]),
                "slowest": (slowest, 1.0),
            }


def slowest_call(backlog: Backlog, task_id: str) -> tuple[str, float]:
    """The longest that one command or script kept the server (ms), of all that is done with such a fleet.

    Each is done three times, and the shortest counts: it may have been interrupted by other processes.
    """
    times: dict[str, list[float]] = {}
    for _ in range(3):
        for name, took in longest_calls(backlog, task_id).items():
            times.setdefault(name, []).append(took)
    return max(((name, min(took)) for name, took in times.items() if len(took) == 3), key=lambda pair: pair[1])


def longest_calls(backlog: Backlog, task_id: str) -> dict[str, float]:
    sim, client = backlog.sim, backlog.sim.client
    client.config_set("slowlog-max-len", 100_000)
    client.slowlog_reset()  # not logged itself: it may be slow after a former run
    client.config_set("slowlog-log-slower-than", 500)
    for words in (
        ("stats",), ("tasks",), ("tasks", "--newest"), ("task", "why", task_id), ("task", "why", task_id[:8]),
        ("task", "why", "no-such-task"), ("doctor",), ("rebalance",), ("watch", "--once"),
    ):  # fmt: skip
        backlog.fleet.start_command(*words, "--json").process.wait(60)
    step(sim.broker, BalancerState(), PollEvidence(), term="", who="bench")
    sweep_step(sim.broker, Sweep(sim.broker), term="", who="bench")
    FleetPoller(client, sim.keys).poll()
    claimed = sim.claim("worker-0")
    assert claimed is not None
    sim.end(claimed)
    client.config_set("slowlog-log-slower-than", -1)
    found: dict[str, float] = {}
    for call in client.slowlog_get(100_000):
        name, _ = logged_name(call["command"])
        found[name] = max(found.get(name, 0.0), call["duration"] / 1000)
    return found


PEER = f"with {SMALL:,}"
SUBJECTS = (
    Subject(
        (
            Row("why", f"`task why` by a prefix, {LARGE:,} queued, the whole command", PEER, "ms", bar=1.1),
            Row("doctor", f"`doctor`, {LARGE:,} queued, the whole command", PEER, "ms", bar=1.1),
            Row("completion", f"TAB after `task why 0a`, {LARGE:,} queued", PEER, "ms", bar=1.5),
            Row("turn", f"a turn of `watch`, {WORKERS} workers, {LARGE:,} queued", PEER, "ms", bar=1.1),
            Row("slowest", f"slowest call of the server, {LARGE:,} queued", "", "ms", bar=3.0, is_absolute=True),
        ),
        pairs,
    ),
)
