"""Whether a worker's name may be taken: its last bearer has to be proved dead first."""

import time

from morag_queue.broker.registry import Predecessor, Registry

from . import hardware
from .identity import Identity

PROOF_SECONDS = 5.0
"""How long the name of a silent predecessor is waited for: more than two of its beats."""


def is_dead(registry: Registry, before: Predecessor, me: Identity) -> bool:
    """Waits for a proof: a goodbye, or no connection in its name and no process (on another host: no beat)."""
    info = before.info
    if info is None or before.incarnation == "fenced" or (before.beat is not None and before.beat.stopped):
        return True
    if info.client_name == me.client_name:
        return True  # an earlier registration of this very process
    is_here = info.host == me.host
    if is_here and hardware.is_same_process(info.pid, info.started_at):
        return False
    beat = before.beat.at if before.beat else info.started_at
    deadline = time.monotonic() + PROOF_SECONDS
    while time.monotonic() < deadline:
        if not registry.is_connected(info.client_name) and (is_here or registry.now() - beat > PROOF_SECONDS):
            return True
        time.sleep(0.2)
        latest = registry.acting(info.worker)
        if latest is None or latest.incarnation != before.incarnation:
            return latest is None
        if latest.beat is not None and latest.beat.at > beat:
            return False
    return not registry.is_connected(info.client_name)


def name_taken(worker: str, other: Predecessor) -> str:
    """What a worker says that may not have the name."""
    where = f"on {other.info.host} (process {other.info.pid})" if other.info else other.incarnation
    return (
        f"a live worker named {worker} runs {where}: start this one under another name (-n), "
        f"or stop the other one first"
    )
