"""Checks of the workers' Celery settings that affect reliability."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from morag_queue.core.words import some, span

from .facts import AgentlessWorker, FleetFacts
from .finding import Code, Finding, error, warning
from .workers import agentless_of_fleet, present_workers

_DEFAULT_VISIBILITY_S = 3600.0  # of kombu's Redis transport

# Settings by the names that the agent uses in its registration.
Settings = Mapping[str, Any]


def _worker_settings(facts: FleetFacts) -> Iterator[tuple[str, Settings]]:
    """Yield each worker of the fleet with its settings, with or without the agent."""
    for view in present_workers(facts):
        yield view.worker, view.info.settings
    for agentless in agentless_of_fleet(facts):
        yield agentless.worker, _from_conf(agentless.conf)


def _from_conf(conf: Mapping[str, Any]) -> Settings:
    """Translate Celery's configuration; missing entries have Celery's defaults."""
    options = conf.get("broker_transport_options")
    return {
        "acks_late": conf.get("task_acks_late", False),
        "reject_on_worker_lost": conf.get("task_reject_on_worker_lost", False),
        "cancel_on_connection_loss": conf.get("worker_cancel_long_running_tasks_on_connection_loss", False),
        "prefetch_multiplier": conf.get("worker_prefetch_multiplier", 4),
        "disable_prefetch": conf.get("worker_disable_prefetch", False),
        "visibility_timeout": options.get("visibility_timeout") if isinstance(options, Mapping) else None,
    }


def _prefetches(settings: Settings) -> bool:
    return settings.get("prefetch_multiplier", 1) != 1 and not settings.get("disable_prefetch")


# (code, whether the settings of a worker violate the rule, message, remedy)
_RULES: tuple[tuple[Code, Callable[[Settings], bool], str, str], ...] = (
    (
        Code.ACKS_EARLY, lambda settings: settings.get("acks_late") is False,
        "acknowledges a task before running it (task_acks_late is off): if the worker is killed, the task is lost",
        "app.conf.task_acks_late = True",
    ),
    (
        Code.DROPS_LOST_TASKS, lambda settings: settings.get("reject_on_worker_lost") is False,
        "drops a task whose process was killed (task_reject_on_worker_lost is off)",
        "app.conf.task_reject_on_worker_lost = True",
    ),
    (
        Code.RUNS_ON_WITHOUT_CONNECTION, lambda settings: settings.get("cancel_on_connection_loss") is False,
        "keeps running a task after its connection is lost, while another worker starts the same task",
        "app.conf.worker_cancel_long_running_tasks_on_connection_loss = True",
    ),
    (
        Code.TAKES_AHEAD, _prefetches,
        "prefetches tasks (worker_prefetch_multiplier is not 1): no other worker can take or reorder them",
        "app.conf.worker_prefetch_multiplier = 1, or worker_disable_prefetch = True",
    ),
)  # fmt: skip


def check_settings(facts: FleetFacts) -> Iterator[Finding]:
    """Report each rule once, with the workers that violate it."""
    workers = list(_worker_settings(facts))
    for code, violates, message, remedy in _RULES:
        violators = [worker for worker, settings in workers if violates(settings)]
        if violators:
            yield warning(code, some(violators), message, remedy)


def check_visibility(facts: FleetFacts) -> Iterator[Finding]:
    """Check the visibility timeouts: kombu redelivers a message that is unacked for longer.

    An agent renews the timestamps of the messages that its worker holds, so there the timeout only has to outlast a
    lost connection. Without the agent it has to be longer than the longest task.
    """
    longest, kind = _longest(facts)
    for agentless in agentless_of_fleet(facts):
        timeout = float(_from_conf(agentless.conf)["visibility_timeout"] or _DEFAULT_VISIBILITY_S)
        if timeout < longest:
            yield _too_short(agentless, timeout, kind, longest, watched=facts.snapshot.leader is not None)
    offline_after = facts.policy.offline_after_seconds
    timeouts = {
        view.worker: float(view.info.settings.get("visibility_timeout") or _DEFAULT_VISIBILITY_S)
        for view in present_workers(facts)
    }
    short = {worker: timeout for worker, timeout in timeouts.items() if timeout < offline_after}
    if short:
        safe_s = max(_DEFAULT_VISIBILITY_S, 2 * offline_after)
        yield warning(
            Code.VISIBILITY_TIMEOUT, some(short),
            f"has a visibility timeout of {span(min(short.values()))}: after a connection loss of that length its "
            f"tasks run elsewhere too, although it counts as offline only after {span(offline_after)}",
            f"app.conf.broker_transport_options['visibility_timeout'] = {safe_s:.0f}",
        )  # fmt: skip


def _too_short(worker: AgentlessWorker, timeout: float, kind: str, longest: float, *, watched: bool) -> Finding:
    consequence = (
        "only morag-queue watch prevents a second run" if watched else "it is redelivered repeatedly while it runs"
    )
    return (warning if watched else error)(
        Code.VISIBILITY_TIMEOUT, worker.worker,
        f"has a visibility timeout of {span(timeout)}, shorter than {kind} of {span(longest)}: {consequence}",
        f"add the agent to its app, or set visibility_timeout of broker_transport_options to {round(longest * 2)}",
    )  # fmt: skip


def _longest(facts: FleetFacts) -> tuple[float, str]:
    """Return the longest estimated run, time to an ETA or measured run: (seconds, kind)."""
    now = facts.snapshot.taken_at
    return max(
        (max((sample.minutes * 60 for sample in facts.samples), default=0.0), "an estimated run"),
        (max((sample.eta_at - now for sample in facts.samples if sample.eta_at is not None), default=0.0), "an ETA"),
        (facts.longest_run_s, "a measured run"),
    )
