"""What one server carries: a large fleet at work for a minute, and where the server's time goes.

`python -m tests.bench.scale [--seconds 60] [--workers 1000] [--claiming 200] [--queued 1000000] [--submitters 20]`

The fleet: registered workers that send the real heartbeat at the real interval; others that claim and settle by real
connections (`tests.support.channel_workers`); submitters that each submit a batch every few seconds; and a leading
`watch`. Time is taken from INFO, and by script from samples of SLOWLOG. On two cores the clients are slower than the
server, so what it carries is computed from its time for each call.
"""

import argparse
import sys
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread

import redis

from morag_queue.broker.keys import Keys
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.scripts import sha
from morag_queue.broker.workers import BeatCall
from morag_queue.core.model import ContentType
from morag_queue.local.waiting import until
from morag_queue.operations.submit import Submitter
from morag_queue.operations.submit_rows import Row
from morag_queue.settings import Settings
from tests.support.fleet import Fleet
from tests.support.simulated_fleet import SimulatedFleet

from .backlog import fill
from .server_use import ServerUse, logged_name

BEAT_SECONDS, TICK_SECONDS = 2.0, 0.1
CLAIMING_PER_PROCESS = 100
SUBMIT_SECONDS, BATCH = 5.0, 100
SAMPLE_SECONDS, SAMPLE_EVERY = 0.5, 5.0
FIGURES = {
    "cpu_percent": 40.0, "memory_percent": 50.0, "active": 0, "reserved": 0, "stopped": False, "clock": 1795000000.0,
}  # fmt: skip


# -- the clients, each in a process of its own


def beat(url: str, names: list[str]) -> None:
    """Send the heartbeats of all workers, evenly spread over the interval."""
    keys, client = Keys(), redis.Redis.from_url(url)
    due, started = 0, time.monotonic()
    while True:
        until_now = int((time.monotonic() - started) / BEAT_SECONDS * len(names))
        pipe = client.pipeline(transaction=False)
        for number in range(due, until_now):
            name = names[number % len(names)]
            key_words, words = BeatCall(name, f"{name}.1", _FIGURES_TEXT, ()).words(keys)
            pipe.evalsha(sha("beat"), len(key_words), *key_words, *words)
        pipe.execute()
        due = until_now
        time.sleep(TICK_SECONDS)


_FIGURES_TEXT = str(FIGURES).replace("'", '"').replace("False", "false")


def submit(url: str, submitters: int) -> None:
    """Let each submitter submit a batch every few seconds, with a picture of the fleet of its own."""
    for number in range(submitters):
        Thread(target=_submit_forever, args=(url, number * SUBMIT_SECONDS / submitters), daemon=True).start()
    Event().wait()


def _submit_forever(url: str, delay: float) -> None:
    settings = Settings(redis_url=url)
    broker = RedisBroker(settings)
    rows = [(0, Row(source=f"https://example.org/{n}", content_type=ContentType.WEB)) for n in range(BATCH)]
    time.sleep(delay)
    next_at = time.monotonic()
    while True:
        report = Submitter(broker, settings).submit(rows, details=False)
        assert report.submitted == BATCH
        next_at += SUBMIT_SECONDS
        time.sleep(max(0.0, next_at - time.monotonic()))


# -- the measurement


@dataclass
class Samples:
    """Calls of scripts in the samples, of `seconds` in all: the number, the seconds and the longest of each."""

    seconds: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    longest: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def take(self, client: redis.Redis) -> None:
        client.slowlog_reset()
        client.config_set("slowlog-log-slower-than", 0)
        began = time.monotonic()
        time.sleep(SAMPLE_SECONDS)
        client.config_set("slowlog-log-slower-than", -1)
        self.seconds += time.monotonic() - began
        for call in client.slowlog_get(1_000_000):
            name, is_script = logged_name(call["command"])
            if is_script:  # the commands within it are logged, too
                took = call["duration"] / 1e6
                self.calls[name] += 1
                self.spent[name] += took
                self.longest[name] = max(self.longest[name], took)

    def scale_to(self, share: float) -> None:
        """Reduce the times to the share of a core that the server used, where others interrupted it."""
        of_calls = sum(self.spent.values()) / self.seconds
        if of_calls > share:
            print(f"the server was interrupted: the times of its calls are divided by {of_calls / share:.1f}")
            self.spent = {name: spent * share / of_calls for name, spent in self.spent.items()}


def pings(url: str, stop: Event, into: list[float]) -> None:
    """How long a small command waits for the server, in seconds."""
    with redis.Redis.from_url(url) as client:
        while not stop.wait(0.02):
            began = time.perf_counter()
            client.ping()
            into.append(time.perf_counter() - began)


def main(options: argparse.Namespace) -> None:
    with Fleet(agent=False) as fleet:
        started = time.monotonic()
        sim = SimulatedFleet(fleet.url)
        names = [f"worker-{number}" for number in range(options.workers)]
        for name in names:
            sim.join(name, slots=2, client_name=f"mq.{name}")
        fill(sim, options.queued)
        print(f"{options.workers:,} workers, {options.queued:,} queued after {time.monotonic() - started:.0f} s")
        start(fleet, "beats", "beat", fleet.url, str(options.workers))
        for first in range(0, options.claiming, CLAIMING_PER_PROCESS):
            count = min(CLAIMING_PER_PROCESS, options.claiming - first)
            fleet.sandbox.fork(
                f"claiming-{first}", "tests.support.channel_workers",
                [fleet.url, str(count), "agent", f"claiming-{first}"], fleet.env,
            )  # fmt: skip
            until(lambda first=first: "ready" in fleet.log(f"claiming-{first}"), 60, "the workers did not start")  # type: ignore[misc]
        fleet.start_watch("--json")
        until(lambda: '"leading"' in fleet.log("watch"), 60, lambda: fleet.log("watch"))
        start(fleet, "submitters", "submit", fleet.url, str(options.submitters))
        time.sleep(5)
        report(options, *measured(fleet, options.seconds))
        print_failures(fleet)


def start(fleet: Fleet, name: str, *arguments: str) -> None:
    fleet.sandbox.fork(name, "tests.bench.scale", list(arguments), fleet.env)


def measured(fleet: Fleet, seconds: float) -> tuple[ServerUse, float, Samples, list[float], dict[str, float]]:
    client, samples, waits, stop = fleet.redis, Samples(), list[float](), Event()
    client.config_set("slowlog-max-len", 1_000_000)
    pinging = Thread(target=pings, args=(fleet.url, stop, waits))
    pinging.start()
    client.config_resetstat()
    before, done, began = ServerUse.of(client), ended(client), time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(left, SAMPLE_EVERY - SAMPLE_SECONDS))
        samples.take(client)
    took = time.monotonic() - began
    used, done = ServerUse.of(client) - before, ended(client) - done
    stop.set()
    pinging.join()
    more = {
        "tasks": done / took, "connections": float(client.info("clients")["connected_clients"]),
        "memory": client.info("memory")["used_memory"] / 1e9,
    }  # fmt: skip
    return used, took, samples, waits, more


def ended(client: redis.Redis) -> int:
    return int(client.hget("mq:totals", "completed||cpu_standard") or 0)


def report(
    options: argparse.Namespace, used: ServerUse, took: float, samples: Samples, waits: list[float],
    more: dict[str, float],
) -> None:  # fmt: skip
    share, waits = used.cpu / took, sorted(waits)
    samples.scale_to(share)
    print(f"for {took:.0f} s: {100 * share:.0f} % of one core, {used.commands / took:,.0f} commands a second,")
    print(f"{more['tasks']:,.0f} tasks a second, {more['connections']:.0f} connections, {more['memory']:.2f} GB;")
    p50, p99 = (1000 * waits[int(len(waits) * part)] for part in (0.5, 0.99))
    print(f"a PING waits {p50:.1f} ms (median), {p99:.1f} ms (99 %), {1000 * waits[-1]:.1f} ms (longest)")
    print(f"\n{'script':16} {'a second':>9} {'µs each':>9} {'longest ms':>11} {'of one core':>12}")
    for name, spent in sorted(samples.spent.items(), key=lambda row: -row[1]):
        calls = samples.calls[name]
        print(
            f"{name:16} {calls / samples.seconds:9,.1f} {1e6 * spent / calls:9,.0f} "
            f"{1000 * samples.longest[name]:11.1f} {100 * spent / samples.seconds:11.1f} %"
        )
    other = share - sum(samples.spent.values()) / samples.seconds
    print(f"{'other commands, reading requests':49} {100 * other:11.1f} %")
    print(f"\n{sentence(options, samples, more['tasks'], share)}")


def sentence(options: argparse.Namespace, samples: Samples, rate: float, share: float) -> str:
    """What one server carries if its time for each task and for the fleet stays as measured."""
    of_tasks = sum(samples.spent[name] for name in ("claim", "settle", "submit")) / samples.seconds
    of_fleet, each = max(share - of_tasks, 0.0), of_tasks / rate
    first = max(samples.spent, key=lambda name: samples.spent[name])
    longest = max(samples.longest, key=lambda name: samples.longest[name])
    return (
        f"One server carries {options.workers:,} workers and {options.queued:,} queued tasks with "
        f"{100 * of_fleet:.0f} % of one core. The scripts of a task take {1e6 * each:.0f} µs from submit to end: "
        f"80 % of the core carry {max(0.8 - of_fleet, 0) / each:,.0f} tasks a second. Most time goes to {first}; "
        f"the longest call is {longest}."
    )


def print_failures(fleet: Fleet) -> None:
    for log in sorted(fleet.dir.glob("*.log")):
        with suppress(OSError):
            if (text := log.read_text("utf-8", "replace")).find("Traceback") >= 0:
                print(f"--- {log.name}\n{text[-2000:]}", file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:2] == ["beat"]:
        beat(sys.argv[2], [f"worker-{number}" for number in range(int(sys.argv[3]))])
    elif sys.argv[1:2] == ["submit"]:
        submit(sys.argv[2], int(sys.argv[3]))
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--claiming", type=int, default=200)
    parser.add_argument("--queued", type=int, default=1_000_000)
    parser.add_argument("--submitters", type=int, default=20)
    main(parser.parse_args())
