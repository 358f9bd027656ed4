"""What a turn of balancing costs: the plan alone, and a turn on a real server, by the size of fleet and backlog.

python -m tests.bench.bench_rebalance
"""

from itertools import cycle, islice
from time import perf_counter, process_time

from morag_queue.core.balancing.rebalance import plan_rebalance
from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.model import Capability, QueueType
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.snapshot import Snapshot
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from morag_queue.operations.rebalance import DEPTH, plan_turn
from tests.core.fleets import fleet, held, worker
from tests.core.lanes_in_words import entry, waiting
from tests.support.simulated_fleet import SimulatedFleet

WORKERS, ROUNDS = 1_000, 15
KINDS = list(islice(cycle(Capability), WORKERS))


def picture(*, waits: bool, starved: bool = False) -> Snapshot:
    """A thousand workers with full hands; with `waits` every level of every queue has a long line."""
    workers = [worker(f"w{n}", kind) for n, kind in enumerate(KINDS)]
    hands = [one for view in workers for one in held(view.worker, QueueType.GPU_FALLBACK, view.info.slots)]
    lanes = []
    for queue in QueueType:
        need = "gpu_preferred" if queue.startswith("gpu") else "cpu"
        rows = {
            level: [
                entry(f"{queue}-{level}-{n}", need, minutes=3, waited=600 if starved else 1, queue=queue)
                for n in range(2 * DEPTH)
            ]
            for level in range(10)
        }
        lanes.append(waiting(queue, rows, more=5_000, depth=DEPTH))
    return fleet(*workers, held=tuple(hands), lanes=tuple(lanes) if waits else ())


def plan_ms(snapshot: Snapshot) -> float:
    took = []
    for _ in range(ROUNDS):
        fresh = Snapshot(**{name: getattr(snapshot, name) for name in ("taken_at", "workers", "lanes", "held")})
        began = process_time()
        plan_rebalance(fresh, Policy(), Queues(), BalancerState(), plan_id="p")
        took.append((process_time() - began) * 1000)
    return min(took)  # what it costs; more is what else the machine does


def stages(server: Server) -> dict[int, SimulatedFleet]:
    """The same fleet twice on one server, with a small and with a large backlog."""
    built = {}
    for database, backlog in enumerate((2_000, 200_000)):
        built[backlog] = sim_fleet = SimulatedFleet(server.url_of(database))
        for n, kind in enumerate(KINDS):
            sim_fleet.join(f"w{n}", kind.value, slots=3)
        for level in range(1, 9):
            queue = QueueType.GPU_FALLBACK if level % 2 else QueueType.CPU_STANDARD
            sim_fleet.fill((f"t{level}-{n}" for n in range(backlog // 8)), level=level, queue=queue)
    return built


def turn_ms(built: dict[int, SimulatedFleet]) -> dict[int, float]:
    """Turn by turn on each, so that whatever else the machine does hits both."""
    took: dict[int, list[float]] = {backlog: [] for backlog in built}
    for _ in range(ROUNDS):
        for backlog, sim_fleet in built.items():
            began = perf_counter()
            plan_turn(sim_fleet.broker, sim_fleet.settings, BalancerState())
            took[backlog].append((perf_counter() - began) * 1000)
    return {backlog: min(times) for backlog, times in took.items()}


def main() -> None:
    print(f"plan, {WORKERS} workers, nothing waits:         {plan_ms(picture(waits=False)):6.1f} ms")
    print(f"plan, {WORKERS} workers, long lines everywhere: {plan_ms(picture(waits=True)):6.1f} ms")
    print(f"plan, {WORKERS} workers, all of it starves:     {plan_ms(picture(waits=True, starved=True)):6.1f} ms")
    with Sandbox() as sandbox:
        server = Server(sandbox)
        cost = turn_ms(stages(server))
        for backlog, took in cost.items():
            print(f"observe and plan, {WORKERS} workers, {backlog:7} wait: {took:6.1f} ms")
        print(f"200,000 against 2,000 that wait: {cost[200_000] / cost[2_000]:.2f}")
        server.stop()


if __name__ == "__main__":
    main()
