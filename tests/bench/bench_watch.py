"""Cost of `watch`: a poll and a turn on a real server, by size of the backlog, and memory growth over many turns.

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
from morag_queue.local.sandbox import Nest
from morag_queue.local.server import Server
from morag_queue.watch.turn import PollEvidence, step
from tests.support.stage import Stage

WORKERS, ROUNDS, CONNECTIONS = 1_000, 15, 6
TURN_MS, RATIO, GROWTH_MB = 150.0, 1.2, 4.0
BACKLOGS = (2_000, 200_000)


def stages(server: Server) -> dict[int, Stage]:
    """Build the same fleet twice on one server, with a small and a large backlog; every worker holds a message."""
    built = {}
    for database, backlog in enumerate(BACKLOGS):
        built[backlog] = stage = Stage(server.url_of(database))
        for n, capability in enumerate(islice(cycle(Capability), WORKERS)):
            stage.join(f"w{n}", capability.value, slots=3, client_name=f"mq.w{n}", beat_seconds=3600.0)
        for level in range(1, 9):
            queue = QueueType.GPU_FALLBACK if level % 2 else QueueType.CPU_STANDARD
            stage.fill((f"t{level}-{n}" for n in range(backlog // 8)), level=level, queue=queue)
        for n in range(WORKERS):
            stage.client.hset(
                stage.keys.held, f"tag-{n}", f'["w{n}", "w{n}.1", "held-{n}", "cpu_standard", 4, 1795000000000]'
            )
    return built


def turns_ms(built: dict[int, Stage]) -> dict[int, float]:
    """Return the time of the fastest turn by backlog. Turns alternate, so that other load affects both."""
    times: dict[int, list[float]] = {backlog: [] for backlog in built}
    states = {backlog: BalancerState() for backlog in built}
    for _ in range(ROUNDS):
        for backlog, stage in built.items():
            start = perf_counter()
            done = step(stage.broker, states[backlog], PollEvidence(), term="", who="bench")
            times[backlog].append((perf_counter() - start) * 1000)
            states[backlog] = done.memory
    return {backlog: min(measured) for backlog, measured in times.items()}


def poll_ms(stage: Stage, server: Server) -> float:
    """Return the time of the fastest poll, with as many connections as such a fleet has."""
    connections = [
        redis.Connection(port=server.port, client_name=f"mq.w{n // CONNECTIONS}") for n in range(6 * WORKERS)
    ]
    for connection in connections:
        connection.connect()
    poller, history = FleetPoller(stage.client, stage.keys), PollHistory()
    infos = {view.worker: view.info for view in stage.broker.observe()[0].workers}
    times = []
    for _ in range(ROUNDS):
        start = perf_counter()
        history, _ = detect_changes(history, poller.look(), infos, stage.settings.policy)
        times.append((perf_counter() - start) * 1000)
    for connection in connections:
        connection.disconnect()
    return min(times)


def growth_mb(url: str, turns: int) -> float:
    """Return the growth of the peak memory over the turns of a small fleet, after the first tenth of them."""
    stage = Stage(url)
    for n in range(8):
        stage.join(f"w{n}", "cpu", slots=3)
    stage.submit(*(f"t{n}" for n in range(50)))
    broker = RedisBroker(stage.settings)
    poller, history, state, start = FleetPoller(broker.client, broker.keys), PollHistory(), BalancerState(), 0
    infos = {view.worker: view.info for view in broker.observe()[0].workers}
    for n in range(turns):
        history, _ = detect_changes(history, poller.look(), infos, stage.settings.policy)
        state = step(broker, state, PollEvidence(), term="", who="bench").memory
        if n == turns // 10:
            gc.collect()
            start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gc.collect()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024


def main(turns: int) -> int:
    failed = 0
    with Nest() as nest:
        server = Server(nest)
        grown = growth_mb(server.url_of(9), turns)
        print(f"memory after {turns} turns: {grown:+.1f} MB (at most {GROWTH_MB:g})")
        built = stages(server)
        print(f"poll, {WORKERS} workers, {6 * WORKERS} connections: {poll_ms(built[BACKLOGS[0]], server):.1f} ms")
        cost = turns_ms(built)
        for backlog, turn in cost.items():
            print(f"turn, {WORKERS} workers, {backlog:7} queued: {turn:6.1f} ms (at most {TURN_MS:g})")
        ratio = cost[BACKLOGS[1]] / cost[BACKLOGS[0]]
        print(f"200,000 against 2,000 queued: {ratio:.2f} (at most {RATIO})")
        failed = (grown > GROWTH_MB) + (cost[BACKLOGS[1]] > TURN_MS) + (ratio > RATIO)
        server.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
