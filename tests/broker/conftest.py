"""Fixtures of the script tests. Each test runs on kombu's default keys, and on a prefix with another separator."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection

from morag_queue.agent.claim_request import ClaimCall, ClaimLane, claim_call
from morag_queue.broker.keys import KOMBU_SEP, Keys
from morag_queue.broker.scripts import Script

OWN, SHARED, BATCH = (
    ClaimLane("cpu_standard.w1", "cpu_standard", is_own=True),
    ClaimLane("cpu_standard", "cpu_standard", is_own=False),
    ClaimLane("cpu_batch", "cpu_batch", is_own=False),
)
LANES = (OWN, SHARED, BATCH)
LAYOUTS = {"default": Keys(), "prefix and separator": Keys("fleet", "app-7:", "::")}


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def keys(request: pytest.FixtureRequest) -> Keys:
    return request.param


@pytest.fixture
def options(keys: Keys) -> dict[str, Any]:
    """The `broker_transport_options` of an app with this layout."""
    options: dict[str, Any] = {"priority_steps": list(range(10))}
    if keys.prefix:
        options["global_keyprefix"] = keys.prefix
    if keys.sep != KOMBU_SEP:
        options["sep"] = keys.sep
    return options


@pytest.fixture
def app(valkey: str, options: dict[str, Any]) -> Iterator[Celery]:
    """A plain producer of that layout."""
    with Celery("producer", broker=valkey, set_as_current=False) as producer:
        producer.conf.broker_transport_options = options
        yield producer


@dataclass(frozen=True)
class Taken:
    """One claimed message."""

    lane: str
    text: bytes
    tag: str

    @property
    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.text)
        return message

    @property
    def task_id(self) -> str:
        return str(self.message["headers"]["id"])


class ScriptRunner:
    """Calls scripts directly, and reads what they wrote."""

    def __init__(self, client: redis.Redis, keys: Keys, app: Celery, options: dict[str, Any]) -> None:
        self.client, self.keys, self.app, self._options = client, keys, app, options
        self._tags = 0

    def send(self, lane: str = "cpu_standard", level: int = 4, **more: Any) -> str:
        more = {"args": ("/x", "document", {}), **more}
        return str(self.app.send_task("t", queue=lane, priority=level, **more).id)

    def put(self, raw: str | bytes, lane: str = "cpu_standard", level: int = 4) -> None:
        self.client.lpush(self.keys.list(lane, level), raw)

    def waiting(self, lane: str = "cpu_standard", level: int = 4) -> list[bytes]:
        """Oldest first."""
        return list(reversed(self.client.lrange(self.keys.list(lane, level), 0, -1)))

    def claim(
        self, worker: str = "w1", incarnation: str = "run-1", lanes: Any = LANES, before: str = ""
    ) -> Taken | None:
        self._tags += 1
        tag = f"new-tag-{self._tags}"
        call = claim_call(worker, incarnation, lanes, range(10), self.keys, tag, before=before)
        answer = Script(self.client, self.keys, ClaimCall)(call)
        return Taken(answer[0].decode(), answer[1], tag) if answer[0] else None

    def claimed_ids(self, **how: Any) -> list[str]:
        """The ids of all claimable tasks, in order."""
        taken = []
        while (one := self.claim(**how)) is not None:
            taken.append(one.task_id)
        return taken

    def held(self, tag: str) -> list[Any] | None:
        text = self.client.hget(self.keys.held, tag)
        return None if text is None else json.loads(text)

    def unacked(self, tag: str) -> bytes | None:
        found: bytes | None = self.client.hget(self.keys.unacked, tag)
        return found

    def everything(self) -> dict[bytes, bytes]:
        """All keys with their dumped values, to compare states of the database."""
        return {key: self.client.dump(key) for key in self.client.scan_iter()}

    def restore(self, tag: str) -> None:
        """Restores an unacknowledged message as kombu does."""
        with (
            Connection(self.client_url, transport_options=self._options) as connection,
            connection.channel() as channel,
        ):
            channel.qos.restore_by_tag(tag)

    @property
    def client_url(self) -> str:
        return str(self.app.conf.broker_url)


@pytest.fixture
def runner(client: redis.Redis, keys: Keys, app: Celery, options: dict[str, Any]) -> ScriptRunner:
    return ScriptRunner(client, keys, app, options)


MakeFull = Callable[[], None]


@pytest.fixture
def out_of_memory(client: redis.Redis) -> Iterator[MakeFull]:
    """Makes the server refuse commands that need memory, until the end of the test."""

    def fill() -> None:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")

    yield fill
    client.config_set("maxmemory", "0")


@pytest.fixture
def read_only(client: redis.Redis) -> Iterator[MakeFull]:
    """Makes the server a replica of an unreachable primary, until the end of the test."""
    yield lambda: client.replicaof("127.0.0.1", "1")
    client.replicaof("no", "one")
