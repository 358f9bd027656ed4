"""The settings model. Every default is here or in `core.policy`; the TOML file has the same structure."""

from typing import Any, Literal

from pydantic import Field, field_validator

from morag_queue.core.model import ContentType, Frozen
from morag_queue.core.policy import ContentPolicies, Policy, Queues

from .locations import DEFAULT_URL
from .urls import check_url


class BrokerSettings(Frozen):
    """How kombu stores its queues; must match the `broker_transport_options` of the workers."""

    sep: str = Field(
        "\x06\x16",
        min_length=1,
        description="separator of lane and level in a Redis key",
    )
    global_keyprefix: str = Field("", description="prefix that kombu adds to every Redis key")
    priority_steps: Literal["auto"] | tuple[int, ...] = Field(
        "auto",
        description="levels that work is queued at; auto: all ten, and 0, 3, 6, 9 while a worker without the agent is "
        "connected",
    )
    connect_timeout_seconds: float = Field(2.0, gt=0, le=60, description="timeout of a connection attempt, in seconds")
    read_timeout_seconds: float = Field(2.5, gt=0, le=600, description="timeout of a command, in seconds")
    master_name: str = Field("mymaster", description="sentinel:// only: name of the master")
    sentinel_kwargs: dict[str, Any] = Field({}, description="sentinel:// only: options of the connections to sentinels")

    @field_validator("priority_steps", mode="before")
    @classmethod
    def _ascending(cls, steps: Any) -> Any:
        if steps == "auto":
            return steps
        if isinstance(steps, str):  # of a variable: `0,3` or `[0, 3]`
            steps = [int(step) if step.strip().isdigit() else step for step in steps.strip(" []").split(",")]
        is_list = isinstance(steps, list | tuple) and all(step in range(10) for step in steps)
        if not is_list or not steps or list(steps) != sorted(set(steps)):
            raise ValueError('it should be "auto" or a list of ascending levels from 0 to 9, for example [0, 3, 6, 9]')
        return steps


class TaskNames(Frozen):
    """Names of the Celery tasks that `submit` sends, by kind of source."""

    file: str = Field("morag.worker.process_file_task", description="task for a file")
    url: str = Field("morag.worker.process_url_task", description="task for the URL of a file")
    web: str = Field("morag.worker.process_web_page_task", description="task for a web page")
    youtube: str = Field("morag.worker.process_youtube_video_task", description="task for a YouTube video")


class LedgerSettings(Frozen):
    """The ledger: the record of each submitted task."""

    retention_seconds: int = Field(3600, ge=1, description="seconds for which the record of an ended task is kept")


class ResultSettings(Frozen):
    """Celery's result backend of the app, where that is another one than the broker's database."""

    url: str = Field("", description="URL of the app's result backend on Redis; empty: the broker's database")
    global_keyprefix: str = Field(
        "", description="global_keyprefix of the app's result_backend_transport_options; empty: that of the broker"
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        return check_url(url) if url else url


class AgentSettings(Frozen):
    """The agent in each worker."""

    claim: bool = Field(True, description="claim messages atomically; false: use kombu's BRPOP")
    heartbeat_seconds: float = Field(2.0, gt=0, description="seconds between heartbeats")
    location: str = Field("", description="where the worker runs, for display")
    tags: tuple[str, ...] = Field((), description="labels of the worker, for display")
    content_types: tuple[ContentType, ...] = Field((), description="types that the worker processes; empty: all")


class Settings(Frozen):
    redis_url: str = Field(DEFAULT_URL, description="URL of the broker")
    namespace: str = Field("mq", pattern=r"^[A-Za-z0-9_.-]+$", description="prefix of the Redis keys of morag-queue")
    broker: BrokerSettings = BrokerSettings()
    queues: Queues = Queues()
    content: ContentPolicies = ContentPolicies()
    policy: Policy = Policy()
    tasks: TaskNames = TaskNames()
    ledger: LedgerSettings = LedgerSettings()
    results: ResultSettings = ResultSettings()
    agent: AgentSettings = AgentSettings()

    @field_validator("redis_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        return check_url(url)
