"""How long the planning of a failover takes, on 1,000 workers.

Run: python -m tests.bench.bench_failover
"""

from collections.abc import Callable
from time import perf_counter

from morag_queue.core.model import QueueType
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.recovery.drain import plan_drain
from morag_queue.core.recovery.failover import plan_failover
from morag_queue.core.recovery.requeue import HeldTasks
from tests.core.fleets import fleet, held, queued, worker

WORKERS = 1000


def seconds(action: Callable[[], object]) -> float:
    began = perf_counter()
    action()
    return perf_counter() - began


def planning() -> None:
    names = [f"worker-{n}" for n in range(WORKERS)]
    snapshot = fleet(
        *(worker(name) for name in names),
        held=tuple(one for name in names for one in held(name)),
        lanes=tuple(queued(QueueType.CPU_STANDARD, 3, name) for name in names),
    )
    one = seconds(lambda: plan_failover(snapshot, Policy(), Queues(), names[:1], HeldTasks(), plan_id="p"))
    many = seconds(lambda: plan_failover(snapshot, Policy(), Queues(), names[:100], HeldTasks(), plan_id="p"))
    drained = seconds(lambda: plan_drain(snapshot, Queues(), names[0], plan_id="p"))
    print(f"{WORKERS} workers: failover of 1 in {one * 1e3:.2f} ms, of 100 in {many * 1e3:.2f} ms; ", end="")
    print(f"a drain in {drained * 1e3:.2f} ms")


if __name__ == "__main__":
    planning()
