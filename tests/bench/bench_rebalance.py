"""Time of a balancing turn: the plan alone, and observe and plan on a real server, by size of the backlog.

python -m tests.bench.bench_rebalance
"""

from itertools import cycle, islice
from time import perf_counter, process_time

from morag_queue.core.balancing.rebalance import rebalance
from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.model import Capability, QueueType
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.snapshot import Snapshot
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from morag_queue.operations.rebalance import DEPTH, plan_turn
from tests.core.fleets import fleet, held, worker
from tests.core.lanes_in_words import entry, waiting
from tests.support.stage import Stage

WORKERS, ROUNDS = 1_000, 15
CAPABILITIES = list(islice(cycle(Capability), WORKERS))


def build_snapshot(*, queued: bool, starving: bool = False) -> Snapshot:
    """Return 1,000 workers with all slots in use; with `queued` every level of every queue has a long backlog."""
    workers = [worker(f"w{n}", capability) for n, capability in enumerate(CAPABILITIES)]
    messages = [message for view in workers for message in held(view.worker, QueueType.GPU_FALLBACK, view.info.slots)]
    lanes = []
    for queue in QueueType:
        requires = "gpu_preferred" if queue.startswith("gpu") else "cpu"
        rows = {
            level: [
                entry(f"{queue}-{level}-{n}", requires, minutes=3, waited=600 if starving else 1, queue=queue)
                for n in range(2 * DEPTH)
            ]
            for level in range(10)
        }
        lanes.append(waiting(queue, rows, more=5_000, depth=DEPTH))
    return fleet(*workers, held=tuple(messages), lanes=tuple(lanes) if queued else ())


def plan_ms(snapshot: Snapshot) -> float:
    times = []
    for _ in range(ROUNDS):
        fresh = Snapshot(**{name: getattr(snapshot, name) for name in ("taken_at", "workers", "lanes", "held")})
        start = process_time()
        rebalance(fresh, BalancerState(), Policy(), Queues(), plan_id="p")
        times.append((process_time() - start) * 1000)
    return min(times)  # the least disturbed run


def stages(server: Server) -> dict[int, Stage]:
    """Build the same fleet twice on one server, with a small and with a large backlog."""
    built = {}
    for database, backlog in enumerate((2_000, 200_000)):
        built[backlog] = stage = Stage(server.url_of(database))
        for n, capability in enumerate(CAPABILITIES):
            stage.join(f"w{n}", capability.value, slots=3)
        for level in range(1, 9):
            queue = QueueType.GPU_FALLBACK if level % 2 else QueueType.CPU_STANDARD
            stage.fill((f"t{level}-{n}" for n in range(backlog // 8)), level=level, queue=queue)
    return built


def turn_ms(built: dict[int, Stage]) -> dict[int, float]:
    """Return the time of the fastest turn by backlog. Turns alternate, so that other load affects both."""
    times: dict[int, list[float]] = {backlog: [] for backlog in built}
    for _ in range(ROUNDS):
        for backlog, stage in built.items():
            start = perf_counter()
            plan_turn(stage.broker, stage.settings, BalancerState())
            times[backlog].append((perf_counter() - start) * 1000)
    return {backlog: min(measured) for backlog, measured in times.items()}


def main() -> None:
    print(f"plan, {WORKERS} workers, nothing queued:        {plan_ms(build_snapshot(queued=False)):6.1f} ms")
    print(f"plan, {WORKERS} workers, long lanes everywhere: {plan_ms(build_snapshot(queued=True)):6.1f} ms")
    print(
        f"plan, {WORKERS} workers, all of it starving:    {plan_ms(build_snapshot(queued=True, starving=True)):6.1f} ms"
    )
    with Sandbox() as sandbox:
        server = Server(sandbox)
        cost = turn_ms(stages(server))
        for backlog, turn in cost.items():
            print(f"observe and plan, {WORKERS} workers, {backlog:7} queued: {turn:6.1f} ms")
        print(f"200,000 against 2,000 queued: {cost[200_000] / cost[2_000]:.2f}")
        server.stop()


if __name__ == "__main__":
    main()
