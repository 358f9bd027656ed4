"""One real worker, with the agent and without: busy, idle, at its start."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from statistics import median

import psutil

from morag_queue.local.waiting import until
from tests.support.fleet import Fleet

from .server_use import ServerUse
from .table import Measured, Row, Subject

WORKER, QUEUE = "worker-cpu-1", "cpu_standard"
LANES = (QUEUE, "cpu_batch", f"{QUEUE}.{WORKER}", f"cpu_batch.{WORKER}")
TASKS, WARM_UP, PICKUPS, IDLE_SECONDS = 3_000, 300, 40, 5.0
SAME_PROMISES = {"task_acks_late": True, "task_reject_on_worker_lost": True, "worker_prefetch_multiplier": 1}
"""Plain Celery's defaults lose the tasks of a worker that is killed; with these it runs them again."""


@contextmanager
def started(*, agent: bool, lanes: Sequence[str] = (QUEUE,), concurrency: int = 1) -> Iterator[Fleet]:
    """Run one worker, until it has run a task. Both kinds read all levels."""
    options = {"broker_transport_options": {"priority_steps": list(range(10))}}
    with Fleet(agent=agent, conf=options if agent else {**options, **SAME_PROMISES}) as fleet:
        fleet.start_worker(
            WORKER, wait=False, concurrency=concurrency, options=("-Q", ",".join(lanes), "-l", "WARNING")
        )
        fleet.until_ran([fleet.send(QUEUE)])
        yield fleet


# -- busy


def busy() -> Iterator[Measured]:
    while True:
        figures = [busy_figures(agent) for agent in (True, False)]
        yield {
            name: (ours, plain)
            for name, ours, plain in zip(("busy-cpu", "busy-commands", "busy-rate"), *figures, strict=True)
        }


def busy_figures(agent: bool) -> tuple[float, float, float]:
    """Microseconds of the server and commands of one task, and tasks per second, for nearly empty tasks."""
    with started(agent=agent) as fleet:
        gate = fleet.release_file()
        fleet.send(QUEUE, level=0, wait_for_file=str(gate))
        for _ in range(WARM_UP + TASKS):
            fleet.send(QUEUE)
        gate.touch()
        before, began = until_ended(fleet, WARM_UP)
        after, ended = until_ended(fleet, WARM_UP + TASKS)
        count = (events := len(fleet.events("end"))) - before[1]
        used = after[0] - before[0]
        assert events == WARM_UP + TASKS + 2
        return 1e6 * used.cpu / count, used.commands / count, count / (ended - began)


def until_ended(fleet: Fleet, tasks: int) -> tuple[tuple[ServerUse, int], float]:
    """Wait until that many tasks have ended; return what the server was used for, how many have ended, and when."""

    def ended() -> int:
        return fleet.events_path.read_bytes().count(b'"event": "end"')

    while (count := ended()) < tasks + 2:
        time.sleep(0.2)
    return (ServerUse.of(fleet.redis), count), time.monotonic()


# -- idle


def idle() -> Iterator[Measured]:
    rng = Random(1)
    with ExitStack() as stack:
        fleets = [stack.enter_context(started(agent=agent, lanes=LANES)) for agent in (True, False)]
        while True:
            used = idle_percent(fleets)
            waits = [sorted(pickup_ms(fleet, rng)) for fleet in fleets]
            yield {
                "pickup": (median(waits[0]), median(waits[1])),
                "pickup-p95": (waits[0][int(0.95 * PICKUPS)], waits[1][int(0.95 * PICKUPS)]),
                "idle-worker": (used[0], used[1]),
            }


def pickup_ms(fleet: Fleet, rng: Random) -> list[float]:
    """The times from before the push of a task to its first line, for single tasks at random intervals."""
    sent = {}
    for _ in range(PICKUPS):
        time.sleep(rng.uniform(0.02, 0.08))
        began = time.time()
        sent[fleet.send(rng.choice(LANES), level=rng.randrange(10))] = began
    fleet.until_ran(sent)
    starts = {event["task"]: event["at"] for event in fleet.events("start")}
    return [1000 * (starts[task] - began) for task, began in sent.items()]


def idle_percent(fleets: Sequence[Fleet]) -> list[float]:
    """The share of a core that the processes of each worker use while nothing waits."""
    workers = [processes(fleet) for fleet in fleets]
    before = [cpu_seconds(worker) for worker in workers]
    time.sleep(IDLE_SECONDS)
    return [100 * (cpu_seconds(worker) - start) / IDLE_SECONDS for worker, start in zip(workers, before, strict=True)]


def processes(fleet: Fleet) -> list[psutil.Process]:
    main = psutil.Process(fleet.workers[WORKER].pid)
    return [main, *main.children(recursive=True)]


def cpu_seconds(of: Sequence[psutil.Process]) -> float:
    return sum(float(process.cpu_times().user + process.cpu_times().system) for process in of)


# -- start


def start() -> Iterator[Measured]:
    while True:
        figures = [start_figures(agent) for agent in (True, False)]
        yield {
            name: (ours, plain) for name, ours, plain in zip(("start", "start-cpu", "start-rss"), *figures, strict=True)
        }


def start_figures(agent: bool) -> tuple[float, float, float]:
    """Seconds until `ready`, CPU seconds of the main process until then, and its memory (MB), as a user starts it."""
    with Fleet(agent=agent) as fleet:
        began = time.monotonic()
        process = fleet.start_worker(WORKER, wait=False, forks=False, options=("-Q", QUEUE))
        until(lambda: " ready." in fleet.log(WORKER), 60, lambda: fleet.log(WORKER))
        took, main = time.monotonic() - began, psutil.Process(process.pid)
        used = cpu_seconds([main])
        fleet.until_ran([fleet.send(QUEUE, level=0)])
        return took, used, main.memory_info().rss / 1e6


PLAIN, SAFE = "plain Celery", "plain Celery, late acknowledgement, prefetch 1"
SUBJECTS = (
    Subject(
        (
            Row("busy-cpu", "server CPU of one task, busy worker", PLAIN, "µs", bar=1.5),
            Row("busy-commands", "commands that the server runs for one task, busy worker", PLAIN, ""),
            Row("busy-rate", "tasks per second of one worker process", SAFE, "", bar=1.1, more_is_better=True),
        ),
        busy,
    ),
    Subject(
        (
            Row("pickup", "time until an idle worker starts a task (median)", SAFE, "ms"),
            Row("pickup-p95", "the same (95th percentile)", SAFE, "ms"),
            Row("idle-worker", "CPU of an idle worker, of one core", SAFE, "%", bar=1.0, is_absolute=True),
        ),
        idle,
    ),
    Subject(
        (
            Row("start", "start of a worker, until it is ready", PLAIN, "s", bar=1.1),
            Row("start-cpu", "CPU of its main process until then", PLAIN, "s", bar=1.1),
            Row("start-rss", "memory of a worker's main process", PLAIN, "MB", bar=1.1),
        ),
        start,
    ),
)
