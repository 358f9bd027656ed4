"""Registration of a worker: the record that it writes, and the proof that an earlier worker of its name is dead."""

import time
from typing import Any

from celery import Celery

from morag_queue.broker.workers import Predecessor, Registry
from morag_queue.core.enums import Capability
from morag_queue.core.worker_records import WorkerInfo
from morag_queue.settings import Settings

from . import compat, hardware
from .identity import Identity

PROOF_SECONDS = 5.0
"""How long to wait for the proof that a silent predecessor is dead: more than two of its heartbeats."""


NO_CLAIM_SETTING = "the setting agent.claim is false"


def beat_seconds(app: Celery, settings: Settings) -> float:
    """The interval of heartbeats, each of which restarts the visibility timeout of the messages in flight."""
    return min(settings.agent.heartbeat_seconds, _visibility_timeout(app) / 4)


def _visibility_timeout(app: Celery) -> float:
    return app.conf.broker_transport_options.get("visibility_timeout") or 3600.0


def worker_info(
    app: Celery,
    settings: Settings,
    identity: Identity,
    capability: Capability,
    *,
    node: str,
    queues: tuple[str, ...],
    slots: int,
    prefetch_multiplier: int,
    pool: str,
    version: str,
) -> WorkerInfo:
    """The registry's record of this worker."""
    return WorkerInfo(
        worker=identity.worker,
        incarnation=identity.incarnation,
        host=identity.host,
        pid=identity.pid,
        capability=capability,
        queues=queues,
        slots=slots,
        pool=pool,
        **hardware.describe(),
        location=settings.agent.location,
        tags=settings.agent.tags,
        content_types=settings.agent.content_types,
        priority_steps=tuple(app.conf.broker_transport_options["priority_steps"]),
        client_name=identity.client_name,
        node=node,
        beat_seconds=beat_seconds(app, settings),
        claims=identity.claims,
        no_claim_reason=identity.no_claim_reason or ("" if identity.claims else NO_CLAIM_SETTING),
        version=version,
        settings=_celery_settings(app, prefetch_multiplier),
        started_at=time.time(),
    )


def _celery_settings(app: Celery, prefetch_multiplier: int) -> dict[str, Any]:
    """The settings of the worker that `doctor` checks. A flag of `celery worker` may override the app's multiplier."""
    conf, options = app.conf, app.conf.broker_transport_options
    return {
        "acks_late": bool(conf.task_acks_late),
        "reject_on_worker_lost": bool(conf.task_reject_on_worker_lost),
        "cancel_on_connection_loss": bool(conf.worker_cancel_long_running_tasks_on_connection_loss),
        "prefetch_multiplier": prefetch_multiplier,
        "disable_prefetch": compat.disables_prefetch(conf),
        "visibility_timeout": _visibility_timeout(app),
        "sep": options.get("sep", ""),
    }


def is_dead(registry: Registry, predecessor: Predecessor, identity: Identity) -> bool:
    """Wait up to `PROOF_SECONDS` for the proof that the predecessor is dead.

    The proof is a clean shutdown, or no connection of its name together with no process (on this host) or no heartbeat
    (on another host).
    """
    process = predecessor.process
    if process is None or predecessor.incarnation == "fenced":
        return True
    if predecessor.beat is not None and predecessor.beat.stopped:
        return True
    if process.client_name == identity.client_name:
        return True  # an earlier registration of this process
    is_here = process.host == identity.host
    if is_here and hardware.is_same_process(process.pid, process.started_at):
        return False
    last_beat = predecessor.beat.at if predecessor.beat else process.started_at
    deadline = time.monotonic() + PROOF_SECONDS
    while time.monotonic() < deadline:
        if not registry.is_connected(process.client_name) and (is_here or registry.now() - last_beat > PROOF_SECONDS):
            return True
        time.sleep(0.2)
        latest = registry.acting(identity.worker)
        if latest is None or latest.incarnation != predecessor.incarnation:
            return latest is None
        if latest.beat is not None and latest.beat.at > last_beat:
            return False
    return not registry.is_connected(process.client_name)


def name_taken(worker: str, other: Predecessor) -> str:
    """The message of a worker that exits because a live worker has its name."""
    where = f"on {other.process.host} (process {other.process.pid})" if other.process else other.incarnation
    return (
        f"a live worker named {worker} runs {where}: start this one under another name (-n), "
        f"or stop the other one first"
    )
