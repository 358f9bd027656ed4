"""The workers: who they are, what they run on, and the Celery settings on which reliability hangs."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from morag_queue.core.lanes import queue_of
from morag_queue.core.model import QueueType, WorkerStatus
from morag_queue.core.snapshot import WorkerView
from morag_queue.core.worker_status import status_in

from .facts import AgentlessWorker, Facts
from .finding import Code, Finding, count, error, info, some, span, warning

_DEFAULT_VISIBILITY_S = 3600.0


def check_names(facts: Facts) -> Iterator[Finding]:
    """One worker a name: by the connections of agents, and by the nodes of workers without one."""
    registered = {view.info.client_name for view in facts.snapshot.workers}
    strangers = [one.name for one in facts.connections if one.name not in registered]
    nodes: dict[str, set[str]] = defaultdict(set)
    for listener in facts.agentless_workers:
        nodes[listener.worker].add(listener.node)
    doubled = {worker for worker, ones in nodes.items() if len(ones) > 1}
    for view in _present(facts):
        # The second connection of a name: `mq.<worker>.<host>.<pid>.<run>`, see the agent's identity.
        if view.worker in nodes or any(one.startswith(f"mq.{quote(view.worker, safe='')}.") for one in strangers):
            doubled.add(view.worker)
    for worker in sorted(doubled):
        yield error(
            Code.DUPLICATE_WORKER, worker,
            f"more than one live worker is named {worker}: each takes what was meant for the other",
            "give one of them another name (celery worker -n NAME@%h)",
        )  # fmt: skip


def check_places(facts: Facts) -> Iterator[Finding]:
    """Queues that nobody reads, though nothing waits there yet, and agents that are not of this fleet."""
    reads = {queue for view in _present(facts) for queue in view.info.queues}
    reads |= {queue for one in facts.agentless_workers for queue in one.queues}
    empty = [queue.value for queue in QueueType if queue.value not in reads and not facts.snapshot.pending[queue]]
    if empty:
        nobody = "no worker has registered here" if not facts.snapshot.workers else "no worker reads it"
        yield info(
            Code.QUEUE_WITHOUT_WORKER, some(empty), f"{nobody}: what is sent to {some(empty)} will wait",
            "start one: morag-queue worker, or a worker of your app with the agent",
        )  # fmt: skip
    known = {view.info.client_name for view in facts.snapshot.workers}
    names = [f"mq.{quote(view.worker, safe='')}." for view in facts.snapshot.workers]
    others = [one for one in facts.connections if one.name not in known and not one.name.startswith(tuple(names))]
    if others:
        workers = {one.name.split(".")[1] for one in others}
        databases = some(str(one.database) for one in others)
        yield info(
            Code.WORKERS_ELSEWHERE, some(workers),
            f"connected to this server (database {databases}), but not of this fleet",
            "if it should be: use one database, `namespace` and global_keyprefix for the workers and this command",
        )  # fmt: skip


def check_kinds(facts: Facts) -> Iterator[Finding]:
    """Workers without the agent, of another version, without the claim, and such that read other queues."""
    ours = [one for one in facts.agentless_workers if any(queue_of(queue) for queue in one.queues)]
    if ours:
        yield warning(
            Code.WORKER_WITHOUT_AGENT, some(one.worker for one in ours),
            "runs without the agent: when it is killed a message may be lost, and nobody knows what it holds",
            "add to its app: from morag_queue.agent import install; install(app)",
        )  # fmt: skip
    strangers = [one for one in facts.agentless_workers if one.queues and one not in ours]
    if strangers:
        queues = some(queue for one in strangers for queue in one.queues)
        yield info(
            Code.OTHER_QUEUES, some(one.worker for one in strangers),
            f"reads only {queues}, none of the queues of this fleet: it takes none of its work",
            "start it with -Q and one of ours, if it was meant to",
        )  # fmt: skip
    other = [view for view in _present(facts) if view.info.version and view.info.version != facts.version]
    if other:
        yield warning(
            Code.VERSION_DIFFERS, some(view.worker for view in other),
            f"runs the agent {some(view.info.version for view in other)}, this command is {facts.version}",
            "install one version of morag-queue on all machines, then restart these workers",
        )  # fmt: skip
    stock = [view.worker for view in _present(facts) if not view.info.claims]
    if stock:
        yield warning(
            Code.NO_CLAIM, some(stock), "takes messages by kombu's own path: a kill between its two steps loses one",
            "leave agent.claim at true, and install the Celery, kombu and redis versions that morag-queue asks for",
        )  # fmt: skip
    if facts.silent:
        yield info(
            Code.NOT_CHECKED, "workers",
            f"{facts.silent} on the control channel did not answer: a busy solo pool, or a monitor",
            "ask again later, or look with: celery inspect ping",
        )  # fmt: skip


def _present(facts: Facts) -> Iterator[WorkerView]:
    """The registered workers that are not gone."""
    for view in facts.snapshot.workers:
        if status_in(facts.snapshot, view, facts.policy)[0] is not WorkerStatus.OFFLINE:
            yield view


Settings = Mapping[str, Any]


def _said(facts: Facts) -> Iterator[tuple[str, Settings]]:
    """Each worker with its settings, in the words of the agent."""
    for view in _present(facts):
        yield view.worker, view.info.settings
    for one in facts.agentless_workers:
        if any(queue_of(queue) for queue in one.queues):
            yield one.worker, _of_conf(one.conf)


def _of_conf(conf: Mapping[str, Any]) -> Settings:
    options = conf.get("broker_transport_options")
    return {
        "acks_late": conf.get("task_acks_late", False),
        "reject_on_worker_lost": conf.get("task_reject_on_worker_lost", False),
        "cancel_on_connection_loss": conf.get("worker_cancel_long_running_tasks_on_connection_loss", False),
        "prefetch_multiplier": conf.get("worker_prefetch_multiplier", 4),
        "disable_prefetch": conf.get("worker_disable_prefetch", False),
        "visibility_timeout": options.get("visibility_timeout") if isinstance(options, Mapping) else None,
    }


def _takes_ahead(said: Settings) -> bool:
    return said.get("prefetch_multiplier", 1) != 1 and not said.get("disable_prefetch")


_RULES: tuple[tuple[Code, Callable[[Settings], bool], str, str], ...] = (
    (
        Code.ACKS_EARLY, lambda said: said.get("acks_late") is False,
        "acknowledges before the work (task_acks_late is off): a killed worker's running task is lost",
        "app.conf.task_acks_late = True",
    ),
    (
        Code.DROPS_LOST_TASKS, lambda said: said.get("reject_on_worker_lost") is False,
        "drops a task whose process was killed (task_reject_on_worker_lost is off)",
        "app.conf.task_reject_on_worker_lost = True",
    ),
    (
        Code.RUNS_ON_WITHOUT_CONNECTION, lambda said: said.get("cancel_on_connection_loss") is False,
        "runs on when its connection breaks, while another worker begins the same task",
        "app.conf.worker_cancel_long_running_tasks_on_connection_loss = True",
    ),
    (
        Code.TAKES_AHEAD, _takes_ahead,
        "takes more than it runs (worker_prefetch_multiplier): what it holds nobody else can take or reorder",
        "app.conf.worker_prefetch_multiplier = 1, or worker_disable_prefetch = True",
    ),
)  # fmt: skip


def check_settings(facts: Facts) -> Iterator[Finding]:
    said = list(_said(facts))
    for code, is_so, message, remedy in _RULES:
        workers = [worker for worker, settings in said if is_so(settings)]
        if workers:
            yield warning(code, some(workers), message, remedy)


def check_visibility(facts: Facts) -> Iterator[Finding]:
    """The visibility timeout against what a task may take: where nobody touches what a worker holds, it runs twice.

    An agent touches what its worker has in hand, so there only a worker that is cut off for so long matters.
    """
    longest, what = _longest(facts)
    for one in facts.agentless_workers:
        if not any(queue_of(queue) for queue in one.queues):
            continue
        timeout = float(_of_conf(one.conf)["visibility_timeout"] or _DEFAULT_VISIBILITY_S)
        if timeout < longest:
            yield _too_short(one, timeout, what, longest, kept=facts.snapshot.leader is not None)
    short = {
        view.worker: float(view.info.settings["visibility_timeout"])
        for view in _present(facts)
        if float(view.info.settings.get("visibility_timeout") or _DEFAULT_VISIBILITY_S)
        < facts.policy.offline_after_seconds
    }
    if short:
        yield warning(
            Code.VISIBILITY_TIMEOUT, some(short),
            f"has a visibility timeout of {span(min(short.values()))}: cut off for so long, its tasks run "
            f"elsewhere, though it counts as gone only after {span(facts.policy.offline_after_seconds)}",
            "app.conf.broker_transport_options['visibility_timeout'] = 3600, kombu's default",
        )  # fmt: skip


def _too_short(one: AgentlessWorker, timeout: float, what: str, longest: float, *, kept: bool) -> Finding:
    consequence = (
        "only `watch` keeps it from running twice" if kept else "it is given to others while it runs, again and again"
    )
    return (warning if kept else error)(
        Code.VISIBILITY_TIMEOUT, one.worker,
        f"has a visibility timeout of {span(timeout)}, shorter than {what} of {span(longest)}: {consequence}",
        f"add the agent to its app, or set visibility_timeout of broker_transport_options to {round(longest * 2)}",
    )  # fmt: skip


def _longest(facts: Facts) -> tuple[float, str]:
    """Seconds, and of what: the longest estimate, ETA and run that were seen."""
    now = facts.snapshot.taken_at
    return max(
        (max((one.minutes * 60 for one in facts.samples), default=0.0), "an estimated run"),
        (max((one.eta_at - now for one in facts.samples if one.eta_at is not None), default=0.0), "an ETA"),
        (facts.longest_run_s, "a measured run"),
    )


def check_unowned(facts: Facts) -> Iterator[Finding]:
    """Taken messages of which no worker says that it has them. A worker without the agent says nothing of any."""
    if facts.unowned > 0 and not facts.agentless_workers and not facts.silent:
        yield warning(
            Code.UNOWNED_MESSAGES, "unacked",
            f"{count(facts.unowned, 'message')} taken by no worker that is known: stuck",
            "morag-queue failover --dead takes back what a dead worker had; `watch` finds the rest",
        )  # fmt: skip
