"""The settings model. Every default is here or in `core.policy`; the TOML file has the same structure."""

from dataclasses import dataclass
from typing import Any, Literal

from morag_queue.core.enums import ContentType
from morag_queue.core.policy import ContentPolicies, Policy, Queues
from morag_queue.core.setting import Table, setting

from .locations import DEFAULT_URL
from .urls import check_url


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it should be a valid string")
    return value


def _url(value: Any) -> str:
    return check_url(_text(value))


def _optional_url(value: Any) -> str:
    return _url(value) if value else ""


def _separator(value: Any) -> str:
    if not _text(value):
        raise ValueError("it should have at least 1 character")
    return _text(value)


def _levels(steps: Any) -> Any:
    if steps == "auto":
        return steps
    if isinstance(steps, str):  # of a variable: `0,3` or `[0, 3]`
        steps = [int(step) if step.strip().isdigit() else step for step in steps.strip(" []").split(",")]
    is_list = isinstance(steps, list | tuple) and all(type(step) is int and step in range(10) for step in steps)
    if not is_list or not steps or list(steps) != sorted(set(steps)):
        raise ValueError('it should be "auto" or a list of ascending levels from 0 to 9, for example [0, 3, 6, 9]')
    return tuple(steps)


@dataclass(frozen=True, kw_only=True)
class BrokerSettings(Table):
    """How kombu stores its queues; must match the `broker_transport_options` of the workers."""

    sep: str = setting(
        "\x06\x16",
        parse=_separator,
        description="separator of lane and level in a Redis key",
    )
    global_keyprefix: str = setting("", description="prefix that kombu adds to every Redis key")
    priority_steps: Literal["auto"] | tuple[int, ...] = setting(
        "auto",
        parse=_levels,
        description="levels that work is queued at; auto: all ten, and 0, 3, 6, 9 while a worker without the agent is "
        "connected",
    )
    connect_timeout_seconds: float = setting(
        2.0, gt=0, le=60, description="timeout of a connection attempt, in seconds"
    )
    read_timeout_seconds: float = setting(2.5, gt=0, le=600, description="timeout of a command, in seconds")
    master_name: str = setting("mymaster", description="sentinel:// only: name of the master")
    sentinel_kwargs: dict[str, Any] = setting(
        {}, description="sentinel:// only: options of the connections to sentinels"
    )


@dataclass(frozen=True, kw_only=True)
class TaskNames(Table):
    """Names of the Celery tasks that `submit` sends, by kind of source."""

    file: str = setting("morag.worker.process_file_task", description="task for a file")
    url: str = setting("morag.worker.process_url_task", description="task for the URL of a file")
    web: str = setting("morag.worker.process_web_page_task", description="task for a web page")
    youtube: str = setting("morag.worker.process_youtube_video_task", description="task for a YouTube video")


@dataclass(frozen=True, kw_only=True)
class LedgerSettings(Table):
    """The ledger: the record of each submitted task."""

    retention_seconds: int = setting(3600, ge=1, description="seconds for which the record of an ended task is kept")


@dataclass(frozen=True, kw_only=True)
class ResultSettings(Table):
    """Celery's result backend of the app, where that is another one than the broker's database."""

    url: str = setting(
        "", parse=_optional_url, description="URL of the app's result backend on Redis; empty: the broker's database"
    )
    global_keyprefix: str = setting(
        "", description="global_keyprefix of the app's result_backend_transport_options; empty: that of the broker"
    )


@dataclass(frozen=True, kw_only=True)
class AgentSettings(Table):
    """The agent in each worker."""

    claim: bool = setting(True, description="claim messages atomically; false: use kombu's BRPOP")
    heartbeat_seconds: float = setting(2.0, gt=0, description="seconds between heartbeats")
    location: str = setting("", description="where the worker runs, for display")
    tags: tuple[str, ...] = setting((), description="labels of the worker, for display")
    content_types: tuple[ContentType, ...] = setting((), description="types that the worker processes; empty: all")


@dataclass(frozen=True, kw_only=True)
class Settings(Table):
    redis_url: str = setting(DEFAULT_URL, parse=_url, description="URL of the broker")
    namespace: str = setting("mq", pattern=r"[A-Za-z0-9_.-]+", description="prefix of the Redis keys of morag-queue")
    broker: BrokerSettings = BrokerSettings()
    queues: Queues = Queues()
    content: ContentPolicies = ContentPolicies()
    policy: Policy = Policy()
    tasks: TaskNames = TaskNames()
    ledger: LedgerSettings = LedgerSettings()
    results: ResultSettings = ResultSettings()
    agent: AgentSettings = AgentSettings()
