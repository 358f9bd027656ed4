"""What is computed without the server: the route of a task, and a frame of `stats --live`."""

import io
import json
from collections.abc import Iterator
from itertools import cycle, islice, product
from time import process_time

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from morag_queue.core.model import Capability, QueuePriority, Requires
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.router import Router
from morag_queue.core.routing.types import TaskProfile
from morag_queue.core.stats import FleetStats
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from morag_queue.operations.live_stats import FleetWatcher
from morag_queue.view.live import render
from morag_queue.view.live_state import LiveState
from morag_queue.view.stats_columns import QUEUE_COLUMNS, WORKER_COLUMNS, table_columns
from tests.core.fleets import fleet, worker
from tests.support.simulated_fleet import SimulatedFleet

from .table import Measured, Row, Subject

TASKS, FEW, MANY = 20_000, 4, 1_000
WORKERS, QUEUED, FRAMES, SIZE = 100, 3_000, 10, (200, 60)


def routes() -> Iterator[Measured]:
    while True:
        yield {"route": (1e6 * route_seconds(MANY), 1e6 * route_seconds(FEW))}


def route_seconds(workers: int) -> float:
    """CPU time of the route of one task, among many that are routed with the same snapshot."""
    capabilities = islice(cycle(Capability), workers)
    snapshot = fleet(*(worker(f"worker-{n}", capability, memory_gb=64.0) for n, capability in enumerate(capabilities)))
    mix = [TaskProfile(requires, priority, None, 1.5, 1.0) for requires in Requires for priority in QueuePriority]
    began = process_time()
    router = Router(snapshot, Policy(), Queues())
    for task in islice(cycle(mix), TASKS):
        router.route(task)
    return (process_time() - began) / TASKS


def frames() -> Iterator[Measured]:
    """CPU time of this process. The first frame, which reads the whole hour, is not counted."""
    with Sandbox() as sandbox:
        sim_fleet = SimulatedFleet(Server(sandbox).url)
        names = [f"worker-{number}" for number in range(WORKERS)]
        for name in names:
            sim_fleet.join(name, slots=3)
        sim_fleet.fill(f"task-{number}" for number in range(QUEUED))
        for name, number in product(names, range(3)):
            held = [name, f"{name}.1", f"held-{name}-{number}", "cpu_standard", 4, round(sim_fleet.broker.now() * 1000)]
            sim_fleet.client.hset(sim_fleet.keys.held, f"tag-{name}-{number}", json.dumps(held))
        watcher = FleetWatcher(sim_fleet.broker, sim_fleet.settings)
        console = Console(file=io.StringIO(), width=SIZE[0], height=SIZE[1], force_terminal=True, color_system="256")
        frame = watcher.observe()
        while True:
            for name in names:
                sim_fleet.beat(name)
            began = process_time()
            for _ in range(FRAMES):
                frame = watcher.observe()
                console.print(render(frame, *SIZE, LiveState()), end="")
            drawn = process_time()
            for _ in range(FRAMES):
                console.print(rich_tables(frame.stats))
            yield {"live": (1000 * (drawn - began) / FRAMES, 1000 * (process_time() - drawn) / FRAMES)}


def rich_tables(stats: FleetStats) -> Group:
    """The columns of `stats` in Rich's own tables."""
    tables = []
    for columns in (table_columns(QUEUE_COLUMNS, stats.queues), table_columns(WORKER_COLUMNS, stats.workers)):
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
        for row in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*(Text(words, style=style) for words, style in row))
        tables.append(table)
    return Group(*tables)


SUBJECTS = (
    Subject((Row("route", f"routing one task, {MANY:,} workers (CPU)", f"with {FEW}", "µs", bar=2.0),), routes),
    Subject(
        (
            Row(
                "live", f"a refresh of `stats --live`, {WORKERS} workers: reading and drawing (CPU)",
                "the tables alone, drawn by Rich", "ms", bar=1.0,
            ),
        ),
        frames,
    ),
)  # fmt: skip
