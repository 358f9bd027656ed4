"""The memory of the loop over many turns, and the time of a poll of a large fleet.

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
from morag_queue.core.model import Capability
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from morag_queue.watch.turn import PollEvidence, step
from tests.support.simulated_fleet import SimulatedFleet

WORKERS, ROUNDS, CONNECTIONS = 1_000, 15, 6
GROWTH_MB = 4.0


def poll_ms(url: str, server: Server) -> float:
    """With as many workers and connections as a large fleet has."""
    sim_fleet = SimulatedFleet(url)
    for n, kind in enumerate(islice(cycle(Capability), WORKERS)):
        sim_fleet.join(f"w{n}", kind.value, slots=3, client_name=f"mq.w{n}", beat_seconds=3600.0)
    connections = [
        redis.Connection(port=server.port, client_name=f"mq.w{n // CONNECTIONS}") for n in range(CONNECTIONS * WORKERS)
    ]
    for one in connections:
        one.connect()
    poller, history = FleetPoller(sim_fleet.client, sim_fleet.keys), PollHistory()
    infos = {view.worker: view.info for view in sim_fleet.broker.observe()[0].workers}
    took = []
    for _ in range(ROUNDS):
        began = perf_counter()
        history, _ = detect_changes(history, poller.poll(), infos, sim_fleet.settings.policy)
        took.append((perf_counter() - began) * 1000)
    for one in connections:
        one.disconnect()
    return min(took)


def growth_mb(url: str, turns: int) -> float:
    """How much more memory the process has after so many turns of a small fleet, the first tenth not counted."""
    sim_fleet = SimulatedFleet(url)
    for n in range(8):
        sim_fleet.join(f"w{n}", "cpu", slots=3)
    sim_fleet.submit(*(f"t{n}" for n in range(50)))
    broker = RedisBroker(sim_fleet.settings)
    poller, history, state, start = FleetPoller(broker.client, broker.keys), PollHistory(), BalancerState(), 0
    infos = {view.worker: view.info for view in broker.observe()[0].workers}
    for n in range(turns):
        history, _ = detect_changes(history, poller.poll(), infos, sim_fleet.settings.policy)
        state = step(broker, state, PollEvidence(), term="", who="bench").state
        if n == turns // 10:
            gc.collect()
            start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gc.collect()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024


def main(turns: int) -> int:
    with Sandbox() as sandbox:
        server = Server(sandbox)
        grown = growth_mb(server.url_of(9), turns)
        print(f"memory after {turns} turns: {grown:+.1f} MB (at most {GROWTH_MB:g})")
        print(f"poll, {WORKERS} workers, {CONNECTIONS * WORKERS} connections: {poll_ms(server.url, server):.1f} ms")
        server.stop()
    return 1 if grown > GROWTH_MB else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
