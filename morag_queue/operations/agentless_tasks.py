"""Tasks that workers without the agent hold, as these report them by Celery's remote control."""

from dataclasses import dataclass

from morag_queue.broker.agentless import AgentlessWorkers
from morag_queue.broker.celery_control import ReportedTask
from morag_queue.broker.codec import LedgerRecord, UnackedMessage, level_of, read_message, waiting_task, with_record
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.lanes import queue_of
from morag_queue.core.model import TaskState
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.task import Task
from morag_queue.core.words import count_of
from morag_queue.core.worker_status import agent_nodes


@dataclass(frozen=True, slots=True)
class AgentlessTasks:
    """The tasks, and what is not known about them in words; "" where no such worker is connected."""

    tasks: tuple[Task, ...] = ()
    warning: str = ""


def agentless_tasks(broker: RedisBroker, snapshot: Snapshot) -> AgentlessTasks:
    """Ask the workers without the agent for their running, prefetched and scheduled tasks.

    Takes up to three times a second, and nothing where no such worker is connected.
    """
    with broker.translated():
        connected = broker.evidence.connected().agentless_workers
        if not connected:
            return AgentlessTasks()
        workers = AgentlessWorkers(broker.client, broker.keys, broker.control)
        nodes = workers.nodes(agent_nodes(snapshot, broker.settings.policy))
        reported = broker.control.tasks_by_node(nodes) if nodes else {}
        ids = [task.task_id for tasks in reported.values() for task in tasks]
        messages = workers.unowned_messages() if ids else {}
        records = broker.records(ids)
    tasks = tuple(
        _task(node.partition("@")[0], one, messages.get(one.task_id), records.get(one.task_id))
        for node, found in sorted(reported.items())
        for one in found
    )
    return AgentlessTasks(tasks, _not_known(len(nodes), max(connected - len(nodes), 0)))


def _task(worker: str, reported: ReportedTask, message: UnackedMessage | None, record: LedgerRecord | None) -> Task:
    raw = read_message(message.text) if message is not None else None
    task = None
    if message is not None and raw is not None:
        task = waiting_task(message.text, message.lane, level_of(raw))
    task = task or Task(
        task_id=reported.task_id, state=TaskState.RUNNING, task=reported.name, lane=reported.lane,
        queue=queue_of(reported.lane),
    )  # fmt: skip
    more = {"state": TaskState.RUNNING, "worker": worker, "started_at": reported.started_at}
    return with_record(task, record, **more)


def _not_known(answered: int, silent: int) -> str:
    parts = []
    if answered:
        parts.append(
            f"the tasks of {count_of(answered, 'worker')} without the agent are listed as reported: "
            "those that wait for a rate limit are missing"
        )
    if silent:
        parts.append(f"{count_of(silent, 'worker')} without the agent did not answer, so their tasks are not visible")
    return "; ".join(parts)
