"""Time to route a task in a batch, by fleet size, against a scan of all workers for each task.

python -m tests.bench.bench_route
"""

from itertools import cycle, islice
from time import process_time

from morag_queue.core.model import Capability, QueuePriority, Requires
from morag_queue.core.policy import Binding, Policy, Queues
from morag_queue.core.routing.router import Router, route
from morag_queue.core.routing.types import TaskProfile
from morag_queue.core.snapshot import Snapshot
from tests.core.fleets import fleet, worker

TASKS, SCANNED = 100_000, 50


def build_fleet(workers: int) -> Snapshot:
    capabilities = islice(cycle(Capability), workers)
    return fleet(*(worker(f"worker-{n}", capability, memory_gb=64.0) for n, capability in enumerate(capabilities)))


def tasks(count: int) -> list[TaskProfile]:
    mix = [TaskProfile(requires, priority, None, 1.5, 1.0) for requires in Requires for priority in QueuePriority]
    return list(islice(cycle(mix), count))


def main() -> None:
    for binding in Binding:
        policy, queues, cost = Policy(binding=binding), Queues(), {}
        for workers in (4, 1_000):
            snapshot = build_fleet(workers)
            start = process_time()
            router = Router(snapshot, policy, queues)
            for task in tasks(TASKS):
                router.route(task)
            cost[workers] = (process_time() - start) / TASKS
            start = process_time()
            for task in tasks(SCANNED):
                route(task, snapshot, policy, queues)
            scan = (process_time() - start) / SCANNED
            print(
                f"{binding.value:5}  {workers:5} workers  {cost[workers] * 1e6:6.1f} µs per task, "
                f"{cost[workers] / scan:.4f} of a scan per task"
            )
        print(f"{binding.value:5}  1,000 against 4 workers: {cost[1_000] / cost[4]:.2f}")


if __name__ == "__main__":
    main()
