"""What the loop costs: a look and a whole turn on a real server, by fleet and backlog; and its memory over many turns.

python -m tests.bench.bench_watch [TURNS]
"""

import gc
import resource
import sys
from itertools import cycle, islice
from time import perf_counter

import redis

from morag_queue.broker.poll import FleetPoller
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.fleet_poll import PollHistory, detect_changes
from morag_queue.core.model import Capability, QueueType
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from morag_queue.watch.turn import PollEvidence, step
from tests.support.simulated_fleet import SimulatedFleet

WORKERS, ROUNDS, CONNECTIONS = 1_000, 15, 6
TURN_MS, RATIO, GROWTH_MB = 150.0, 1.2, 4.0
BACKLOGS = (2_000, 200_000)


def stages(server: Server) -> dict[int, SimulatedFleet]:
    """The same fleet twice on one server, with a small and with a large backlog; all hands of it are full."""
    built = {}
    for database, backlog in enumerate(BACKLOGS):
        built[backlog] = sim_fleet = SimulatedFleet(server.url_of(database))
        for n, kind in enumerate(islice(cycle(Capability), WORKERS)):
            sim_fleet.join(f"w{n}", kind.value, slots=3, client_name=f"mq.w{n}", beat_seconds=3600.0)
        for level in range(1, 9):
            queue = QueueType.GPU_FALLBACK if level % 2 else QueueType.CPU_STANDARD
            sim_fleet.fill((f"t{level}-{n}" for n in range(backlog // 8)), level=level, queue=queue)
        for n in range(WORKERS):
            sim_fleet.client.hset(
                sim_fleet.keys.held, f"tag-{n}", f'["w{n}", "w{n}.1", "held-{n}", "cpu_standard", 4, 1795000000000]'
            )
    return built


def turns_ms(built: dict[int, SimulatedFleet]) -> dict[int, float]:
    """Turn by turn on each, so that whatever else the machine does hits both."""
    took: dict[int, list[float]] = {backlog: [] for backlog in built}
    memory = {backlog: BalancerState() for backlog in built}
    for _ in range(ROUNDS):
        for backlog, sim_fleet in built.items():
            began = perf_counter()
            done = step(sim_fleet.broker, memory[backlog], PollEvidence(), term="", who="bench")
            took[backlog].append((perf_counter() - began) * 1000)
            memory[backlog] = done.state
    return {backlog: min(times) for backlog, times in took.items()}


def looks_ms(sim_fleet: SimulatedFleet, server: Server) -> float:
    """With as many connections as such a fleet has."""
    open_ones = [redis.Connection(port=server.port, client_name=f"mq.w{n // CONNECTIONS}") for n in range(6 * WORKERS)]
    for one in open_ones:
        one.connect()
    looks, watched = FleetPoller(sim_fleet.client, sim_fleet.keys), PollHistory()
    infos = {view.worker: view.info for view in sim_fleet.broker.observe()[0].workers}
    took = []
    for _ in range(ROUNDS):
        began = perf_counter()
        watched, _ = detect_changes(watched, looks.poll(), infos, sim_fleet.settings.policy)
        took.append((perf_counter() - began) * 1000)
    for one in open_ones:
        one.disconnect()
    return min(took)


def growth_mb(url: str, turns: int) -> float:
    """How much more memory the process has after so many turns of a small fleet, the first tenth not counted."""
    sim_fleet = SimulatedFleet(url)
    for n in range(8):
        sim_fleet.join(f"w{n}", "cpu", slots=3)
    sim_fleet.submit(*(f"t{n}" for n in range(50)))
    broker = RedisBroker(sim_fleet.settings)
    looks, watched, memory, start = FleetPoller(broker.client, broker.keys), PollHistory(), BalancerState(), 0
    infos = {view.worker: view.info for view in broker.observe()[0].workers}
    for n in range(turns):
        watched, _ = detect_changes(watched, looks.poll(), infos, sim_fleet.settings.policy)
        memory = step(broker, memory, PollEvidence(), term="", who="bench").memory
        if n == turns // 10:
            gc.collect()
            start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gc.collect()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024


def main(turns: int) -> int:
    failed = 0
    with Sandbox() as sandbox:
        server = Server(sandbox)
        grown = growth_mb(server.url_of(9), turns)
        print(f"memory after {turns} turns: {grown:+.1f} MB (at most {GROWTH_MB:g})")
        built = stages(server)
        print(f"look, {WORKERS} workers, {6 * WORKERS} connections: {looks_ms(built[BACKLOGS[0]], server):.1f} ms")
        cost = turns_ms(built)
        for backlog, took in cost.items():
            print(f"turn, {WORKERS} workers, {backlog:7} wait: {took:6.1f} ms (at most {TURN_MS:g})")
        ratio = cost[BACKLOGS[1]] / cost[BACKLOGS[0]]
        print(f"200,000 against 2,000 that wait: {ratio:.2f} (at most {RATIO})")
        failed = (grown > GROWTH_MB) + (cost[BACKLOGS[1]] > TURN_MS) + (ratio > RATIO)
        server.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
