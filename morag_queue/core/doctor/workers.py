"""Checks of the workers: duplicate names, missing agents, foreign agents, versions, unserved queues."""

from collections import defaultdict
from collections.abc import Iterator
from urllib.parse import quote

from morag_queue.core.lanes import queue_of
from morag_queue.core.model import Capability, QueueType, Requires, WorkerStatus
from morag_queue.core.routing.lane_readers import readers_in
from morag_queue.core.snapshot import LaneEntry, WorkerView
from morag_queue.core.words import count_of, is_are, some
from morag_queue.core.worker_status import status_in

from .facts import AgentlessWorker, FleetFacts
from .finding import Code, Finding, error, info, warning


def present_workers(facts: FleetFacts) -> Iterator[WorkerView]:
    """Yield the registered workers that are not offline."""
    for view in facts.snapshot.workers:
        if status_in(facts.snapshot, view, facts.policy)[0] is not WorkerStatus.OFFLINE:
            yield view


def agentless_of_fleet(facts: FleetFacts) -> list[AgentlessWorker]:
    """Return the workers without the agent that read a queue or lane of this fleet."""
    return [worker for worker in facts.agentless_workers if any(queue_of(queue) for queue in worker.queues)]


def check_duplicates(facts: FleetFacts) -> Iterator[Finding]:
    """Find worker names in use more than once, from agents' connections and from the nodes of agentless workers."""
    registered = {view.info.client_name for view in facts.snapshot.workers}
    unregistered = [connection.name for connection in facts.connections if connection.name not in registered]
    nodes: dict[str, set[str]] = defaultdict(set)
    for agentless in facts.agentless_workers:
        nodes[agentless.worker].add(agentless.node)
    duplicates = {worker for worker, names in nodes.items() if len(names) > 1}
    for view in present_workers(facts):
        prefix = _connection_prefix(view.worker)
        if view.worker in nodes or any(name.startswith(prefix) for name in unregistered):
            duplicates.add(view.worker)
    for worker in sorted(duplicates):
        yield error(
            Code.DUPLICATE_WORKER, worker,
            f"more than one live worker is named {worker}: each takes the tasks meant for the other",
            "give one of them another name (celery worker -n NAME@%h)",
        )  # fmt: skip


def _connection_prefix(worker: str) -> str:
    """Return the start of an agent's connection names, `mq.<worker>.<host>.<pid>.<run>`, see `agent.identity`."""
    return f"mq.{quote(worker, safe='')}."


def check_unserved_queues(facts: FleetFacts) -> Iterator[Finding]:
    """Find empty queues without a worker; `check_service` reports those where tasks wait."""
    served = {queue for view in present_workers(facts) for queue in view.info.queues}
    served |= {queue for agentless in facts.agentless_workers for queue in agentless.queues}
    unserved = [queue.value for queue in QueueType if queue.value not in served and not facts.snapshot.pending[queue]]
    if unserved:
        cause = "no worker reads it" if facts.snapshot.workers else "no worker has registered here"
        yield info(
            Code.QUEUE_WITHOUT_WORKER, some(unserved), f"{cause}: tasks sent to {some(unserved)} will wait",
            "start one: morag-queue worker, or a worker of your app with the agent",
        )  # fmt: skip


def check_gpu_queues(facts: FleetFacts) -> Iterator[Finding]:
    """Find queues of GPU workers that a worker without a GPU reads: what waits there, it may take."""
    waiting = {view.queue for view in facts.snapshot.lanes for row in view.heads for head in row if _needs_gpu(head)}
    for queue, reason in readers_in(facts.snapshot, facts.queues).unsafe.items():
        if Capability.CPU in facts.queues.of(queue).served_by:
            continue
        tasks_wait = queue in waiting
        effect = (
            "may take the tasks waiting there that require one" if tasks_wait else "would take tasks that require one"
        )
        yield (error if tasks_wait else warning)(
            Code.GPU_QUEUE_READ_BY_CPU, queue.value,
            f"{reason}: it {effect}, so such tasks go to another queue, or are refused",
            f"start the worker without {queue} in -Q, or with MORAG_WORKER_TYPE=gpu if it has a GPU",
        )  # fmt: skip


def _needs_gpu(head: LaneEntry) -> bool:
    return head.requires is Requires.GPU


def check_foreign_agents(facts: FleetFacts) -> Iterator[Finding]:
    """Find agents that are connected to this server and not registered in this fleet."""
    registered = {view.info.client_name for view in facts.snapshot.workers}
    prefixes = tuple(_connection_prefix(view.worker) for view in facts.snapshot.workers)
    foreign = [
        connection
        for connection in facts.connections
        if connection.name not in registered and not connection.name.startswith(prefixes)
    ]
    if foreign:
        databases = some(str(connection.database) for connection in foreign)
        yield info(
            Code.WORKERS_ELSEWHERE, some(connection.name.split(".")[1] for connection in foreign),
            f"connected to this server (database {databases}), but not registered in this fleet",
            "if it belongs here: set the same database, `namespace` and global_keyprefix for workers and command",
        )  # fmt: skip


def check_agentless(facts: FleetFacts) -> Iterator[Finding]:
    """Find workers without the agent, and workers that read no queue of this fleet."""
    ours = agentless_of_fleet(facts)
    if ours:
        yield warning(
            Code.WORKER_WITHOUT_AGENT, some(worker.worker for worker in ours),
            "runs without the agent: a kill may lose a message, and no record says which tasks it holds",
            "add to its app: from morag_queue.agent import install; install(app)",
        )  # fmt: skip
    others = [worker for worker in facts.agentless_workers if worker.queues and worker not in ours]
    if others:
        queues = some(queue for worker in others for queue in worker.queues)
        yield info(
            Code.OTHER_QUEUES, some(worker.worker for worker in others),
            f"reads only {queues}, no queue of this fleet: it takes none of its tasks",
            f"if it should, start it with -Q and one of {', '.join(QueueType)}",
        )  # fmt: skip
    if facts.silent:
        yield info(
            Code.NOT_CHECKED, "workers",
            f"{count_of(facts.silent, 'listener')} on the control channel did not answer: busy solo pools or monitors",
            "try again later, or check with: celery inspect ping",
        )  # fmt: skip


def check_agents(facts: FleetFacts) -> Iterator[Finding]:
    """Find agents of another version, and agents that do not use the claim script."""
    outdated = [view for view in present_workers(facts) if view.info.version not in ("", facts.version)]
    if outdated:
        yield warning(
            Code.VERSION_DIFFERS, some(view.worker for view in outdated),
            f"runs the agent {some(view.info.version for view in outdated)}, this command is {facts.version}",
            "install one version of morag-queue on all machines, then restart these workers",
        )  # fmt: skip
    without_claim = [view for view in present_workers(facts) if not view.info.claims]
    if without_claim:
        reasons = sorted({view.info.no_claim_reason for view in without_claim} - {""})
        yield warning(
            Code.NO_CLAIM, some(view.worker for view in without_claim),
            "takes messages with kombu's two steps instead of the atomic claim: a kill between them loses one"
            + "".join(f"; {reason}" for reason in reasons),
            "leave agent.claim at true, and install the Celery, kombu and redis versions that morag-queue requires",
        )  # fmt: skip


def check_unowned(facts: FleetFacts) -> Iterator[Finding]:
    """Find unacked messages without a known owner. Agentless workers record no owner, so with them none is certain."""
    if facts.unowned > 0 and not facts.agentless_workers and not facts.silent:
        yield warning(
            Code.UNOWNED_MESSAGES, "unacked",
            f"{count_of(facts.unowned, 'unacked message')} {is_are(facts.unowned)} stuck: no known worker holds "
            f"{'it' if facts.unowned == 1 else 'them'}",
            "morag-queue failover --dead requeues what dead workers hold; `watch` recovers the rest",
        )  # fmt: skip
