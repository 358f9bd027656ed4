"""What a worker writes about itself on the broker. Dataclasses: a worker that starts needs no pydantic."""

from dataclasses import dataclass, field
from typing import Any

from .enums import Capability, ContentType

LARGEST = 1e15
"""Larger than any stored timestamp or duration in use; excludes infinities and numbers that overflow later sums."""


@dataclass(frozen=True, kw_only=True)
class WorkerInfo:
    """Registration of a worker, written when it starts.

    `incarnation` is one run of one process, `<host>.<pid>.<random>`. `queues` determine its lanes. `slots` is the size
    of its pool: tasks that run at once. No `content_types` means all. `client_name` is the name of its broker
    connections in CLIENT LIST, `node` its address on Celery's control channel (`worker@host`). `beat_seconds` is the
    interval of its heartbeats. `claims`: whether it takes messages with the atomic claim script, `no_claim_reason` why
    it does not. `settings` are the Celery settings that affect reliability, for `doctor`.
    """

    worker: str
    incarnation: str
    host: str
    pid: int
    capability: Capability
    queues: tuple[str, ...]
    slots: int
    pool: str = "prefork"
    cores: int = 0
    memory_gb: float = 0.0
    disk_gb: float = 0.0
    gpus: int = 0
    gpu_memory_gb: float = 0.0
    location: str = ""
    tags: tuple[str, ...] = ()
    content_types: tuple[ContentType, ...] = ()
    priority_steps: tuple[int, ...] = tuple(range(10))
    client_name: str = ""
    node: str = ""
    beat_seconds: float = 2.0
    claims: bool = True
    no_claim_reason: str = ""
    version: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    started_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class HeldMessage:
    """One message in kombu's `unacked`, with the owner that the claim script recorded; `tag` is its delivery tag."""

    tag: str
    worker: str
    incarnation: str
    task_id: str
    lane: str
    level: int
    claimed_at: float
