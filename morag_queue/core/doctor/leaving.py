"""What must be done before morag-queue is uninstalled, so that plain Celery workers find all work.

A plain worker reads the queues of its -Q, at kombu's default levels. It knows nothing of the lanes of single workers,
dead letters, cordons and pauses. The findings are in the order in which their remedies should be carried out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from morag_queue.core.levels import DEFAULT_STEPS
from morag_queue.core.model import QueueType
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.words import count_of, is_are, some
from morag_queue.core.worker_status import runs_agent

from .facts import CLIENT_LIST, FleetFacts
from .finding import Code, Finding, error, info, warning
from .server import check_unread


@dataclass(frozen=True, slots=True)
class LeavingFacts:
    """Facts besides those of the doctor.

    dead      number of dead letters
    cordoned  names of the workers with a cordon, registered or not
    arrivals  tasks that arrived in each queue within the last hour, from `submit`, the Python API and `route_task`
    pattern   of the names of our keys
    """

    fleet: FleetFacts
    dead: int = 0
    cordoned: tuple[str, ...] = ()
    arrivals: tuple[tuple[QueueType, int], ...] = ()
    pattern: str = "mq:*"

    @property
    def snapshot(self) -> Snapshot:
        return self.fleet.snapshot

    def agent_of(self, worker: str) -> WorkerView | None:
        """Return the worker if it runs with the agent now: a killed one has no connection, whatever its heartbeat."""
        view = self.snapshot.worker_by_id.get(worker)
        if view is None or not runs_agent(view, self.snapshot.taken_at, self.fleet.policy):
            return None
        connected = {connection.name for connection in self.fleet.connections}
        return view if view.info.client_name in connected or CLIENT_LIST in self.fleet.unread else None

    @property
    def plain_readers(self) -> frozenset[str]:
        """Queues that workers without the agent read."""
        return frozenset(queue for worker in self.fleet.agentless_workers for queue in worker.queues)


def findings_before_leaving(facts: LeavingFacts) -> tuple[Finding, ...]:
    """Return what is left to do, the first step first."""
    return tuple(finding for check in _CHECKS for finding in check(facts))


def _unread(facts: LeavingFacts) -> Iterator[Finding]:
    yield from check_unread(facts.fleet)


def _watch(facts: LeavingFacts) -> Iterator[Finding]:
    lease = facts.snapshot.leader
    if lease is not None:
        yield warning(
            Code.WATCH_RUNS, lease.verb, f"{lease.verb} of {lease.who} leads the fleet and moves its work",
            "stop it, and its cron jobs: systemctl stop morag-queue",
        )  # fmt: skip


def _agents(facts: LeavingFacts) -> Iterator[Finding]:
    for view in facts.snapshot.workers:
        if facts.agent_of(view.worker) is not None:
            yield warning(
                Code.AGENT_RUNS, view.worker,
                f"{view.worker} runs with the agent: it alone reads its own lanes, and all ten levels",
                f"morag-queue drain {view.worker} --shutdown --allow-last --allow-pinned, then start it without "
                f"install(app): celery -A APP worker -n {view.worker}@%h -Q {','.join(view.info.queues)}",
            )  # fmt: skip


def _worker_lanes(facts: LeavingFacts) -> Iterator[Finding]:
    for worker, views in facts.snapshot.lanes_by_worker.items():
        waiting = sum(view.length for view in views)
        if waiting and facts.agent_of(worker) is None:
            force = "" if worker in facts.snapshot.worker_by_id else " --force --yes"
            yield error(
                Code.WORKER_LANE_IN_USE, worker,
                f"{count_of(waiting, 'task')} {'waits' if waiting == 1 else 'wait'} in the lanes of {worker}, "
                "which no plain worker reads",
                f"move them to the shared lanes: morag-queue failover {worker}{force}",
            )  # fmt: skip


def _held(facts: LeavingFacts) -> Iterator[Finding]:
    for worker, held in facts.snapshot.held_by_worker.items():
        if held and facts.agent_of(worker) is None:
            yield error(
                Code.TASKS_HELD, worker,
                f"{worker} is gone and holds {count_of(len(held), 'task')}: plain workers find them only after the "
                "visibility timeout, those of its own lanes never",
                f"queue them again: morag-queue failover {worker}",
            )  # fmt: skip
    if facts.fleet.unowned > 0 and not facts.fleet.agentless_workers:
        count = facts.fleet.unowned
        yield error(
            Code.TASKS_HELD, "unacked",
            f"{count_of(count, 'message')} without a known owner {is_are(count)} in unacked",
            "queue them again: morag-queue failover --dead",
        )  # fmt: skip


def _levels(facts: LeavingFacts) -> Iterator[Finding]:
    lanes = [view for view in facts.snapshot.lanes if view.worker is None]
    counts = {view.lane: sum(n for level, n in enumerate(view.lengths) if level not in DEFAULT_STEPS) for view in lanes}
    found = {lane: count for lane, count in counts.items() if count}
    if found:
        yield error(
            Code.LEVELS_IN_USE, some(found),
            f"{count_of(sum(found.values()), 'task')} {is_are(sum(found.values()))} at levels other than "
            f"{', '.join(map(str, DEFAULT_STEPS))}, which plain workers do not poll",
            "MORAG_QUEUE_BROKER__PRIORITY_STEPS=0,3,6,9 morag-queue rebalance",
        )  # fmt: skip


def _dead(facts: LeavingFacts) -> Iterator[Finding]:
    if facts.dead:
        yield warning(
            Code.DEAD_LETTERS_KEPT, "dead",
            f"{count_of(facts.dead, 'failed or quarantined task')} {is_are(facts.dead)} kept in dead: no other tool "
            "finds them",
            "morag-queue dead requeue --all --yes runs them again; or drop them: morag-queue dead drop --all --yes",
        )  # fmt: skip


def _pauses(facts: LeavingFacts) -> Iterator[Finding]:
    for queue in sorted(facts.snapshot.paused):
        yield warning(
            Code.PAUSE_IGNORED, queue, f"{queue} is paused, which plain workers ignore: they run what waits there",
            f"leave {queue} out of their -Q if it must wait, and lift the pause: morag-queue resume {queue}",
        )  # fmt: skip


def _silent(facts: LeavingFacts) -> Iterator[Finding]:
    if facts.fleet.silent:
        yield info(
            Code.NOT_CHECKED, "workers",
            f"{count_of(facts.fleet.silent, 'listener')} on the control channel did not answer: busy workers, whose "
            "queues are not known, or monitors such as Flower",
            "try again later",
        )  # fmt: skip


def _cordons(facts: LeavingFacts) -> Iterator[Finding]:
    plain = {worker.worker for worker in facts.fleet.agentless_workers}
    for worker in facts.cordoned:
        if worker in plain:
            yield warning(
                Code.CORDON_IGNORED, worker, f"{worker} is out of service, but runs without the agent and takes work",
                f"stop it if it must not work, and lift its cordon: morag-queue uncordon {worker}",
            )  # fmt: skip


def _readers(facts: LeavingFacts) -> Iterator[Finding]:
    """Find queues with work that no plain worker will take."""
    shared = {view.queue: view.length for view in facts.snapshot.lanes if view.worker is None}
    waiting = [queue for queue in QueueType if shared.get(queue) and queue.value not in facts.plain_readers]
    if waiting:
        count = sum(shared[queue] for queue in waiting)
        yield error(
            Code.QUEUE_WITHOUT_WORKER, some(waiting),
            f"{count_of(count, 'task')} {'waits' if count == 1 else 'wait'} where no worker without the agent reads",
            f"start one: celery -A APP worker -Q {','.join(waiting)}",
        )  # fmt: skip
    arriving = [queue for queue, count in facts.arrivals if count and queue.value not in facts.plain_readers]
    rest = [queue for queue in arriving if queue not in waiting]
    if rest:
        yield info(
            Code.QUEUES_IN_USE, some(rest),
            "tasks arrived there within the last hour, and no worker without the agent reads it",
            "remove morag_queue.route_task from task_routes and stop `submit`; or start a plain worker with "
            f"-Q {','.join(rest)}",
        )  # fmt: skip


def _keys(facts: LeavingFacts) -> Iterator[Finding]:
    own = [key for key in facts.fleet.keyspace.own if key.name.startswith(facts.pattern.removesuffix("*"))]
    if own:
        yield info(
            Code.KEYS_REMAIN, facts.pattern,
            f"{count_of(len(own), 'key')} with the journal, counters and records of tasks, which plain workers do not "
            "need",
            'delete them last: python -c "import os, redis; r = redis.Redis.from_url(os.environ[\'REDIS_URL\']); '
            f"[r.unlink(key) for key in r.scan_iter('{facts.pattern}', 1000)]\"",
        )  # fmt: skip


_CHECKS = (_unread, _watch, _agents, _worker_lanes, _held, _levels, _dead, _pauses, _silent, _cordons, _readers, _keys)
