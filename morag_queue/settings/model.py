"""The settings as values. Every default is here or in `core.policy`; the TOML file has the same shape."""

from typing import Any

from pydantic import Field, field_validator

from morag_queue.core.model import ContentType, Frozen
from morag_queue.core.policy import ContentPolicies, Policy, Queues

from .urls import check_url

DEFAULT_URL = "redis://localhost:6379/0"


class BrokerSettings(Frozen):
    """How kombu lays out its lists; it has to be what the workers' `broker_transport_options` say."""

    sep: str = Field("\x06\x16", min_length=1, description="between a lane and its level; kombu's default")
    global_keyprefix: str = Field("", description="kombu's prefix of every key")
    priority_steps: tuple[int, ...] = Field(tuple(range(10)), description="levels that the workers poll")
    connect_timeout_seconds: float = Field(2.0, gt=0, le=60)
    read_timeout_seconds: float = Field(2.5, gt=0, le=600, description="for a server that accepts and does not answer")
    master_name: str = Field("mymaster", description="sentinel:// only: the name of the master")
    sentinel_kwargs: dict[str, Any] = Field({}, description="sentinel:// only: how to log in to the sentinels")

    @field_validator("priority_steps")
    @classmethod
    def _ascending(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if not steps or list(steps) != sorted(set(steps)) or steps[0] < 0 or steps[-1] > 9:
            raise ValueError("it should be rising levels from 0 to 9, for example [0, 3, 6, 9]")
        return steps


class TaskNames(Frozen):
    """The Celery tasks that `submit` sends, by what the source is."""

    file: str = "morag.worker.process_file_task"
    url: str = "morag.worker.process_url_task"
    web: str = "morag.worker.process_web_page_task"
    youtube: str = "morag.worker.process_youtube_video_task"


class LedgerSettings(Frozen):
    retention_seconds: int = Field(3600, ge=1, description="how long a task is remembered after it has ended")


class AgentSettings(Frozen):
    """The worker's side."""

    claim: bool = Field(True, description="take messages by the atomic claim; off is kombu's own path")
    heartbeat_seconds: float = Field(2.0, gt=0)
    location: str = ""
    tags: tuple[str, ...] = ()
    content_types: tuple[ContentType, ...] = Field((), description="empty: all")


class Settings(Frozen):
    redis_url: str = Field(DEFAULT_URL, description="the broker of the fleet")
    namespace: str = Field("mq", pattern=r"^[A-Za-z0-9_.-]+$", description="prefix of our own keys in Redis")
    broker: BrokerSettings = BrokerSettings()
    queues: Queues = Queues()
    content: ContentPolicies = ContentPolicies()
    policy: Policy = Policy()
    tasks: TaskNames = TaskNames()
    ledger: LedgerSettings = LedgerSettings()
    agent: AgentSettings = AgentSettings()

    @field_validator("redis_url")
    @classmethod
    def _usable(cls, url: str) -> str:
        return check_url(url)
